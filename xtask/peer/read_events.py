#!/usr/bin/env python3
"""Checks with TensorBoard's own reader that a run's event file holds every number of its epochs.jsonl and steps.jsonl.

python3 xtask/peer/read_events.py RUN
Needs: pip install tensorboard
"""
import json
import struct
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def as_f32(value):
    return struct.unpack("f", struct.pack("f", value))[0]


def main():
    run = Path(sys.argv[1])
    events = EventAccumulator(str(run), size_guidance={"scalars": 0, "images": 0, "tensors": 0}).Reload()
    tags, missing, compared = events.Tags(), 0, 0
    for kind in ("epochs", "steps"):
        records = [json.loads(line) for line in (run / f"{kind}.jsonl").read_text().splitlines()]
        for field in records[0]:
            found = [(event.step, event.value) for event in events.Scalars(f"{kind}/{field}")]
            expected = [(record["step"], as_f32(record[field])) for record in records]
            compared += len(expected)
            missing += found != expected
    texts = [tag for tag in tags["tensors"] if tag.endswith("/text_summary")]
    print(f"{compared} numbers compared, {missing} fields differ; {len(tags['images'])} images, texts {texts}")
    for tag in tags["images"]:
        image = events.Images(tag)[0]
        assert image.encoded_image_string.startswith(b"\x89PNG") and image.width > 0, tag
    if missing or not tags["images"] or not texts:
        sys.exit("the event file is not whole")


if __name__ == "__main__":
    main()
