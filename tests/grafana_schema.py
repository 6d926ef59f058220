"""Reads dashboards into Grafana's own types, and says what is lost on the way: fields that it does not
know, and values that it takes for others."""

import json
import sys

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard


def lost(written, read, path):
    if isinstance(written, dict) and isinstance(read, dict):
        for name, value in written.items():
            if name in read:
                yield from lost(value, read[name], f"{path}/{name}")
            else:
                yield f"{path}/{name}: unknown"
    elif isinstance(written, list) and isinstance(read, list) and len(written) == len(read):
        for index, pair in enumerate(zip(written, read)):
            yield from lost(*pair, f"{path}/{index}")
    elif written != read:
        yield f"{path}: {written!r} is read as {read!r}"


register_default_plugins()
for file in sys.argv[1:]:
    with open(file, encoding="utf-8") as text:
        written = json.load(text)
    read = json.loads(JSONEncoder().encode(Dashboard.from_json(written)))
    for line in lost(written, read, file):
        print(line)
