"""The trace: spans of threads and of the device, in the form that viewers read."""

import json
import threading
import time

import pytest
import torch

from workers.bench.run import busy_share
from workers.runtime import trace
from workers.runtime.device import DeviceEvent

CPU = torch.device("cpu")


@pytest.fixture
def recorder(monkeypatch) -> trace.Recorder:
    monkeypatch.setattr(trace, "_recorder", None)  # put back afterwards
    return trace.start(CPU)


def events(recorder: trace.Recorder, path) -> list[dict]:
    recorder.write(path)
    return json.loads(path.read_text())["traceEvents"]


def test_spans_of_each_thread_are_on_a_track_with_its_name(recorder, tmp_path):
    def work() -> None:
        with trace.span("write"):
            time.sleep(0.01)

    thread = threading.Thread(target=work, name="second")
    with trace.span("fetch"):
        thread.start()
        thread.join()
    found = events(recorder, tmp_path / "trace.json")
    tracks = {event["args"]["name"]: event["tid"] for event in found if event["ph"] == "M"}
    spans = {event["name"]: event for event in found if event["ph"] == "X"}
    assert spans["write"]["tid"] == tracks["second"]
    assert spans["fetch"]["tid"] == tracks[threading.current_thread().name]
    assert spans["fetch"]["dur"] >= spans["write"]["dur"] >= 10_000  # microseconds
    assert spans["fetch"]["ts"] <= spans["write"]["ts"]


def test_a_span_is_there_though_its_body_raised(recorder, tmp_path):
    with pytest.raises(KeyError), trace.span("fetch"):
        raise KeyError
    assert "fetch" in {event["name"] for event in events(recorder, tmp_path / "trace.json")}


def test_nothing_is_recorded_before_a_trace_is_started(monkeypatch):
    monkeypatch.setattr(trace, "_recorder", None)
    with trace.span("fetch"):
        pass
    trace.add_device_span("pack", DeviceEvent(CPU), 0.1)


def test_the_busy_share_is_what_is_left_beside_the_gaps(recorder, tmp_path):
    for start in (1.0, 2.0, 4.0):  # of a second each: a gap of one in four
        end = DeviceEvent(CPU)
        end._time = recorder._device_base._time + start + 1.0
        trace.add_device_span("pack", end, 1.0)
    recorder.write(tmp_path / "trace.json")
    assert busy_share(tmp_path / "trace.json") == pytest.approx(0.75)
