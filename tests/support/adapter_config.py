"""The configuration of an adapter, without PEFT."""

import json
from pathlib import Path
from typing import Any


def write_adapter(folder: Path, **settings: Any) -> Path:
    """Write the configuration of a LoRA adapter, without its weights."""
    folder.mkdir(exist_ok=True)
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 8, "init_lora_weights": True, **settings}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder
