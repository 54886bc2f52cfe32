"""One process that validates, predicts, scores and learns a stream, without a durable step: what the least would be.

It consumes the same records with the same client, checks columns, types and bounds while it decodes, keeps each
prediction in a dict until its label comes, scores over a window and learns. Nothing survives its end.
"""

from __future__ import annotations

import math
from collections import deque
from datetime import datetime
from typing import Any

from common import COLUMNS, WINDOW, Clock, Cost, make_model


def one_process(address: str, topic: str, offset: int, rows: int) -> Cost:
    """Cost a row over the rows that begin at an offset."""
    import msgspec

    from headrace.infra.kafka_bus import KafkaBus
    from headrace.infra.service import tidy_memory

    features = msgspec.defstruct("Features", [(name, float) for name in COLUMNS], forbid_unknown_fields=True)
    example = msgspec.defstruct("Example", [("id", str), ("time", datetime), ("features", features)])
    label = msgspec.defstruct("Label", [("id", str), ("time", datetime), ("label", bool)])
    check = msgspec.json.Decoder(example).decode
    as_dict, decode_label = msgspec.json.Decoder(dict[str, Any]).decode, msgspec.json.Decoder(label).decode
    model = make_model()
    pending: dict[str, Any] = {}
    window: deque[tuple[bool, float]] = deque()
    hits, loss, learned = 0, 0.0, 0
    reader = KafkaBus(address).reader()
    reader.assign({(topic, 0): offset})
    tidy_memory()
    clock = Clock()
    while learned < rows:
        for message in reader.poll(50, 0.1):
            body = message.value() or b""
            headers: Any = message.headers()
            if headers[3][1] == b"headrace.ExampleArrived.v1":
                found = check(body)
                x = as_dict(body)["features"]
                pending[found.id] = x, model.predict_proba_one(x)
            elif headers[3][1] == b"headrace.LabelArrived.v1":
                answer = decode_label(body)
                waiting = pending.pop(answer.id, None)
                if waiting is None:
                    continue
                x, shares = waiting
                p, y = shares[True], answer.label
                score = (p >= 0.5) is y, -math.log(max(p if y else 1 - p, 1e-15))
                window.append(score)
                hits += score[0]
                loss += score[1]
                if len(window) > WINDOW:
                    old = window.popleft()
                    hits -= old[0]
                    loss -= old[1]
                model.learn_one(x, y)
                learned += 1
    cost = clock.cost(rows)
    reader.close()
    return cost
