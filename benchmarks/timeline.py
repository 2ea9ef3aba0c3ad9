"""A picture of some seconds of ``worker bench --trace``: the threads' and the device's activity.

python -m benchmarks.timeline trace.json timeline.png [--start 5] [--seconds 4]
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

#: Colours of a batch's stages, in the order in which a batch passes through them.
COLOURS = {
    "claim": "#8c6bb1",
    "fetch": "#41b6c4",
    "tokenise": "#238b45",
    "wait for others": "#f0f0f0",
    "launch": "#ec7014",
    "wait for device": "#fee391",
    "assemble": "#dd3497",
    "write": "#2b8cbe",
    "complete": "#6a51a3",
}
DEVICE_COLOUR = "#525252"

#: Seconds of the shortest span that is visible; shorter ones are drawn as long as this.
VISIBLE = 0.008


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trace", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--start", type=float, default=5.0)
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    events = json.loads(options.trace.read_text())["traceEvents"]
    draw(events, options.start, options.seconds, options.picture)


def draw(events: list[dict[str, Any]], start: float, seconds: float, picture: Path) -> None:
    names = {event["tid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    labels = ["GPU" if name == "device" else f"thread {tid}" for tid, name in names.items()]
    figure, axes = plt.subplots(figsize=(11, 2.8), layout="constrained")
    packs = 0
    bars: dict[tuple[int, str], list[tuple[float, float]]] = defaultdict(list)
    for event in events:
        began = event.get("ts", 0) / 1e6 - start
        if event["ph"] != "X" or not -event["dur"] / 1e6 < began < seconds:
            continue
        on_device = names[event["tid"]] == "device"
        # Two shades separate neighbouring packs on the device.
        packs += on_device
        colour = f"{DEVICE_COLOUR}{'ff' if packs % 2 else 'bb'}" if on_device else ""
        length = max(event["dur"] / 1e6, 0 if on_device else VISIBLE)
        bars[event["tid"], colour or COLOURS[event["name"]]].append((began, length))
    # Short stages on top of long ones.
    for (tid, colour), spans in sorted(bars.items(), key=lambda bar: -max(s for _, s in bar[1])):
        axes.broken_barh(spans, (tid - 0.4, 0.8), facecolors=colour)
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in COLOURS.values()]
    figure.legend(handles, COLOURS, loc="outside lower center", ncols=len(COLOURS), fontsize=9)
    axes.set(xlim=(0, seconds), xlabel="seconds", yticks=list(names), yticklabels=labels)
    axes.invert_yaxis()
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    main()
