"""Delivery: what a reader drops, what it never drops, and how outputs are numbered."""

import json
from datetime import UTC, datetime

import pytest

from headrace.infra.records import DeadLetter, Incoming, NotDeclared, Outgoing, source_of
from headrace.schemas.codec import ORIGIN, TYPE_OF, encode, headers_of
from headrace.schemas.control import ModelUpdated, TrainingRequested
from headrace.schemas.record import Emit, Record
from headrace.schemas.stream import LabelArrived, Tick

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LABEL = LabelArrived(id="a", time=NOON, label=True)
BODY = encode(LABEL)


class Sent:
    """A message as a client hands it over."""

    def __init__(self, offset, headers, body=BODY, topic="rain.predictions", partition=0, at_ms=7):
        self._all = (topic, partition, offset, b"a", body, headers, (1, at_ms))

    def topic(self):
        return self._all[0]

    def partition(self):
        return self._all[1]

    def offset(self):
        return self._all[2]

    def key(self):
        return self._all[3]

    def value(self):
        return self._all[4]

    def headers(self):
        return self._all[5]

    def timestamp(self):
        return self._all[6]


class Kept:
    """A producer that keeps what it was given."""

    def __init__(self):
        self.sent = []

    def produce(self, *what):
        self.sent.append(what)


def enveloped(source, sequence, event_type=TYPE_OF[LabelArrived]):
    return [(name, value.encode()) for name, value in headers_of(event_type, source, sequence)]


def test_a_reader_drops_what_is_not_larger_per_source():
    incoming = Incoming("rain.predictions", "")
    given = [("/a", 5), ("/a", 5), ("/b", 5), ("/a", 4), ("/a", 6), ("/b", 5)]
    kept = [incoming.record(Sent(n, enveloped(*place))) is not None for n, place in enumerate(given)]
    assert kept == [True, False, True, False, True, False]
    assert incoming.repeats == 3
    assert incoming.sequences == {"/a": 6, "/b": 5}


def test_a_reader_goes_on_from_the_sequences_it_saved():
    assert Incoming("rain.predictions", "", {"/a": 5}).record(Sent(0, enveloped("/a", 5))) is None


def test_headers_may_stand_in_another_order():
    record = Incoming("rain.predictions", "").record(Sent(0, list(reversed(enveloped("/a", 5)))))
    assert (record.source, record.sequence, record.event, record.pipeline) == ("/a", 5, LABEL, "rain")


def test_users_records_are_never_dropped_by_sequence_and_not_parsed():
    incoming = Incoming("t1-rain.data-arrived", "t1-")
    first, again = (incoming.record(Sent(n, enveloped("/user", 1))) for n in (3, 4))
    assert (first.event, first.source, first.sequence, again.sequence) == (None, "", 3 * 65_536, 4 * 65_536)
    assert incoming.record(Sent(5, None)).topic == "<p>.data-arrived"


def test_in_the_control_log_the_place_first_written_counts_too():
    incoming = Incoming("control-log", "")

    def copy(offset, origin, sequence):
        more = [("ce_correlationid", b"x"), ("ce_causationid", b"y"), (ORIGIN, origin)]
        tick = encode(Tick(schedule="minute", due=NOON))
        return incoming.record(Sent(offset, [*enveloped("/w", sequence, TYPE_OF[Tick]), *more], tick, "control-log"))

    assert copy(0, b"model-updates/aa/0/7", 9) is not None
    assert copy(1, b"decisions/bb/0/3", 9) is not None
    assert copy(2, b"model-updates/aa/0/8", 9) is None
    assert copy(3, b"model-updates/aa/0/9", 10) is not None


@pytest.mark.parametrize(
    ("headers", "body", "says"),
    [
        (None, b"{}", "no source and sequence in the envelope .it has no ce_source, ce_sequence.$"),
        (enveloped("/a", 1)[:4], b"{}", "no source and sequence in the envelope .it has no ce_sequence.$"),
        (enveloped("/a", "x"), b"{}", "no source and sequence in the envelope .invalid literal"),
        (
            enveloped("/a", 1, "headrace.Nothing.v1"),
            b"{}",
            "no event of <p>.predictions is named 'headrace.Nothing.v1'",
        ),
        (enveloped("/a", 1), b"\xff", "headrace.LabelArrived.v1"),
        (enveloped("/a", 1), b"{}", "id"),
    ],
)
def test_what_cannot_be_read_is_a_dead_letter_that_says_why(headers, body, says):
    with pytest.raises(DeadLetter, match=says):
        Incoming("rain.predictions", "").record(Sent(0, headers, body))


def test_outputs_are_numbered_by_the_inputs_offset_across_topics():
    kept = Kept()
    outgoing = Outgoing(kept, "/validator/rain/1f3a9c2e/0", "t1-", "rain")
    record = Record(None, 123, "<p>.data-arrived", "rain", 0, 41)
    outgoing.publish(
        record,
        [Emit("<p>.data-validated", LABEL, key=b"a", body=b"as it was"), Emit("<p>.data-rejected", LABEL, partition=0)],
    )
    assert [(sent[0], sent[1], sent[3], sent[5]) for sent in kept.sent] == [
        ("t1-rain.data-validated", None, b"as it was", 123),
        ("t1-rain.data-rejected", 0, encode(LABEL), 123),
    ]
    assert [dict(sent[4])["ce_sequence"] for sent in kept.sent] == [b"2686976", b"2686977"]


def test_a_fold_may_write_only_what_its_table_lets_it():
    outgoing = Outgoing(Kept(), "/joiner/rain/0/0", "", "rain", frozenset({"<p>.labelled-examples"}))
    with pytest.raises(NotDeclared, match="may not write 'metrics'"):
        outgoing.publish(Record(None, 0, "<p>.predictions", "rain", 0, 0), [Emit("metrics", LABEL)])


def test_a_step_emits_at_most_a_thousand():
    outgoing = Outgoing(Kept(), "/joiner/rain/0/0", "", "rain")
    with pytest.raises(NotDeclared, match="1001 outputs"):
        outgoing.publish(
            Record(None, 0, "<p>.predictions", "rain", 0, 0), [Emit("<p>.labelled-examples", LABEL)] * 1001
        )


def test_a_control_event_names_its_cause_and_the_whole_storys_id():
    kept = Kept()
    record = Record(
        None,
        0,
        "control-log",
        "",
        0,
        9,
        headers=[
            *enveloped("/x", 1),
            ("ce_correlationid", b"story"),
            ("ce_causationid", b"before"),
            (ORIGIN, b"pipelines/aa/0/2"),
        ],
    )
    event = TrainingRequested(pipeline="rain", request="r", trigger="person", cause="c", release=1, seed=0, start=0)
    Outgoing(kept, "/orchestrator/-/0/0", "", "").publish(record, [Emit("training-requests", event, partition=0)])
    headers = dict(kept.sent[0][4])
    assert (headers["ce_correlationid"], headers["ce_causationid"]) == ("story", "pipelines/aa/0/2")


def test_the_sequencers_copy_keeps_its_first_source_sequence_and_bytes():
    kept = Kept()
    body = b'{"pipeline":"rain"}'
    record = Record(
        None,
        5,
        "model-updates",
        "",
        0,
        7,
        key=b"rain",
        body=body,
        source="/registry/-/0/0",
        sequence=65_536,
        headers=enveloped("/registry/-/0/0", 65_536, TYPE_OF[ModelUpdated]),
    )
    Outgoing(kept, "/sequencer/-/0/0", "", "").copy(
        record, Emit("control-log", LABEL, partition=0), "model-updates/aa/0/7"
    )
    headers = dict(kept.sent[0][4])
    assert kept.sent[0][3] == body
    assert (headers["ce_source"], headers["ce_sequence"], headers[ORIGIN]) == (
        "/registry/-/0/0",
        "65536",
        "model-updates/aa/0/7",
    )


def test_a_tick_of_users_topics_is_copied_under_its_place():
    kept = Kept()
    record = Record(
        Tick(schedule="minute", due=NOON), 5, "ticks", "", 0, 7, sequence=7 * 65_536, headers=enveloped("/s", 0)
    )
    Outgoing(kept, "/sequencer/-/0/0", "", "").copy(
        record, Emit("control-log", record.event, partition=0), "ticks/aa/0/7"
    )
    assert dict(kept.sent[0][4])["ce_source"] == "ticks"


def test_sources_name_service_pipeline_topic_id_and_partition():
    assert source_of("validator", "rain", "1f3a9c2e77", 3) == "/validator/rain/1f3a9c2e/3"
    assert source_of("registry", "", "1f3a9c2e77", 0) == "/registry/-/1f3a9c2e/0"


@pytest.mark.parametrize("number", [b"-1", b"9" * 20, b"9" * 6_000])
def test_a_sequence_that_no_service_writes_is_a_dead_letter(number):
    headers = [*enveloped("/a", 1)[:4], ("ce_sequence", number)]
    with pytest.raises(DeadLetter, match=r"no service numbers like this|no source and sequence"):
        Incoming("rain.predictions", "").record(Sent(0, headers))


def test_garbage_in_a_services_name_hides_nothing_that_the_service_says_later():
    incoming = Incoming("rain.predictions", "")
    with pytest.raises(DeadLetter):
        incoming.record(Sent(0, enveloped("/a", 1_000_000), b"{"))
    assert incoming.record(Sent(1, enveloped("/a", 7))) is not None


def test_json_deeper_than_any_decoder_goes_is_a_dead_letter():
    deep = b'{"id":"a","time":"2026-01-01T00:00:00Z","label":true,"more":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(DeadLetter):
        Incoming("rain.predictions", "").record(Sent(0, enveloped("/a", 1), deep))


def test_an_event_of_another_topic_is_a_dead_letter():
    with pytest.raises(DeadLetter, match=r"no event of <p>.data-validated is named 'headrace.PredictionMade.v1'"):
        Incoming("rain.data-validated", "").record(Sent(0, enveloped("/a/0", 1, "headrace.PredictionMade.v1"), b"{}"))


def test_a_dead_letter_fits_into_a_message_whatever_came():
    kept = Kept()
    headers = [("h" * 5_000, b"v" * 900_000), *((f"n{n}", None) for n in range(1_000))]
    message = Sent(3, headers, b"\xff" * 900_000, at_ms=10**17)
    Outgoing(kept, "/joiner/rain/0/0", "", "rain").dead_letter("rain.predictions", message, "because " * 10_000)
    [(topic, _, _, body, _, _)] = kept.sent
    assert topic == "rain.predictions-dlq"
    assert len(body) < 500_000
    assert json.loads(body)["offset"] == 3
