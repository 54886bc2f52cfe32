"""What the log tells of an anchor and of a bad range: each way back was taken for its reason, once, and led forward.

Read from the topics alone, without the code that decided. A move of an alias stands where its cause stands in
`control-log`, so the aliases are known as the registry had them when it read a verdict or a request.
"""

from collections import Counter
from typing import NamedTuple

from headrace.ranges import from_on, meet, union, without
from headrace.schemas.control import (
    AliasRemoved,
    AutomationPaused,
    ModelUpdated,
    ModelValidated,
    RangeBarred,
    RequestRefused,
    RollbackAsked,
    RunEnded,
    RunStarted,
    TrainingRequested,
)

END = 1 << 62  # of a run that follows the log


class Decided(NamedTuple):
    """One decision at its offset in `control-log`, the aliases before it, and the moves that it caused."""

    offset: int
    event: object
    aliases: dict
    moves: list


def in_order(control, moves):
    """`control` are (offset, event) of `control-log`, `moves` (offset of the cause, event) of `model-updates`."""
    caused, aliases = {}, {}
    for cause, move in moves:
        caused.setdefault(cause, []).append(move)
    for offset, event in control:
        own = caused.get(offset, [])
        yield Decided(offset, event, dict(aliases), own)
        for move in own:
            if isinstance(move, ModelUpdated):
                aliases[move.alias] = move
            else:
                aliases.pop(move.alias, None)


def wrong_ways(control, moves, taken, made):
    """What must not be, in words; `taken` are the snapshots of the log, `made` its predictions."""
    decided = list(in_order(control, moves))
    learned = Learned(control, taken)
    found = _anchored(decided) + _refreshed(decided, learned) + _barred(decided, learned)
    return found + _forks(decided) + _led_on(decided, learned) + _newer(made)


def ways(control, moves):
    """Which of these states a history reached, for counting."""
    decided = list(in_order(control, moves))
    reached = Counter()
    for one in decided:
        event, (champion, *_) = one.event, [*_champions(one), None]
        if isinstance(event, ModelValidated) and event.stage == "refresh":
            what = "found" if event.snapshot_uri and event.verdict == "pass" else event.verdict
            reached[f"refresh {what}"] += 1
            if _is_return(one):
                reached["return to the anchor"] += 1
            elif event.verdict == "fail":
                reached["refresh fail of others"] += 1
            if event.verdict == "pass" and any(move.alias == "anchor" for move in one.moves):
                reached["the anchor moved on"] += 1
        elif isinstance(event, RangeBarred):
            reached["range barred"] += 1
            reached["range barred, learned by nobody who serves"] += event.again_from is None
            reached["range barred, all anew"] += event.again_from is not None and event.parent is None
        elif isinstance(event, RollbackAsked) and event.bad_ranges:
            reached["back to before a range"] += champion is not None and "champion" in one.aliases
            reached["a range frees another alias"] += any(
                isinstance(move, AliasRemoved) and move.alias in ("challenger", "previous") for move in one.moves
            )
        elif isinstance(event, AutomationPaused) and "since_s" in event.numbers:
            reached["a second return asks a person"] += 1
        elif isinstance(event, RunStarted) and event.parent is not None:
            reached["fork after the anchor" if event.request.startswith("rollback-") else "fork without a range"] += 1
    served = {move.run for one in decided for move in _champions(one)}
    forks = {one.event.run for one in decided if isinstance(one.event, RunStarted) and one.event.excluded}
    reached["a run without the range serves"] += bool(forks & served)
    return {what for what, times in reached.items() if times}


class Learned:
    """What each run's model learned, with that of the model it began with; by the log, not by the registry."""

    def __init__(self, control, taken):
        self._started = {event.run: event for _, event in control if isinstance(event, RunStarted)}
        self._stands = {one.uri: (run, event.offset) for event in taken for run, one in event.runs.items()}

    def ranges(self, run, upto=END):
        """The offsets up to one."""
        found = ()
        while run is not None:
            started = self._started[run]
            found = union(found, without(started.start_offset, upto, started.excluded))
            run, upto = self._stands[started.parent] if started.parent is not None else (None, 0)
        return found

    def of(self, move):
        """What an alias's model learned, or will."""
        return self.ranges(move.run, END if move.follows else move.snapshot_offset)


def _champions(one):
    return [move for move in one.moves if isinstance(move, ModelUpdated) and move.alias == "champion"]


def _name(move):
    return f"{move.run}@{move.snapshot_offset}"


def _is_of(event, aliases):
    """Whether a verdict of the refresh test is about the revisions that are compared."""
    anchor, champion = aliases.get("anchor"), aliases.get("champion")
    return None not in (anchor, champion) and (event.run, event.against) == (champion.run, _name(anchor))


def _is_return(one):
    champion = one.aliases.get("champion")
    return any(not move.follows and champion is not None and move.run == champion.run for move in _champions(one))


def _anchored(decided):
    """The anchor is what became champion, or an older revision of its run; who serves frozen has none."""
    found, has_one = [], any(move.alias == "anchor" for one in decided for move in one.moves)
    for one in decided:
        champions = _champions(one)
        anchors = [move for move in one.moves if move.alias == "anchor"]
        if champions and has_one:
            champion = champions[-1]
            after = [_name(move) for move in anchors if isinstance(move, ModelUpdated)]
            if after != ([_name(champion)] if champion.follows else []):
                found.append(f"{_name(champion)} became champion, the anchor is {after}")
            if not champion.follows and ("anchor" in one.aliases) != bool(anchors):
                found.append(f"{_name(champion)} serves frozen, its anchor is {anchors}")
        elif anchors and not (isinstance(one.event, ModelValidated) and one.event.stage == "refresh"):
            found.append(f"the anchor moved at {one.event}: {anchors}")
    return found


def _refreshed(decided, learned):
    """A test that failed has one return, to the anchor of then; one that passed moves the anchor on, to what is older
    than the revision that the test began with; a verdict about others does nothing.
    """
    found, barred, moved, pinned = [], (), Counter(), {}
    for one in decided:
        event = one.event
        if isinstance(event, RollbackAsked) and any(move.alias == "champion" and move.barred for move in one.moves):
            barred = union(barred, event.bad_ranges)
        if isinstance(event, RangeBarred):
            barred = union(barred, event.parts)
        if not isinstance(event, ModelValidated) or event.stage != "refresh":
            if _is_return(one) and not isinstance(event, RollbackAsked):
                found.append(f"the champion went back to a revision of its run without a test: {event}")
            continue
        anchor = one.aliases.get("anchor")
        if event.against.partition("@")[0] != event.run:
            found.append(f"a refresh test compares {event.against} with run {event.run}")
        if event.verdict == "pass" and event.snapshot_uri is None:
            pinned[event.run, event.offset] = event.snapshot_offset
        is_due = _is_of(event, one.aliases)
        if event.verdict == "fail":
            is_due = is_due and not meet(learned.of(anchor), barred)
        else:
            is_due = is_due and event.verdict == "pass" and event.snapshot_uri is not None
        told = [(move.alias, getattr(move, "uri", None)) for move in one.moves]
        due = []
        if is_due and event.verdict == "fail":
            previous = [("previous", None)] if "previous" in one.aliases else []
            shadow = one.aliases.get("challenger")
            back = [("challenger", shadow.uri)] if shadow is not None and shadow.share is not None else []
            due = [("champion", anchor.uri), *previous, *back, ("anchor", None)]
        elif is_due:
            due = [("anchor", event.snapshot_uri)]
            asked = pinned.get((event.run, event.offset))
            if asked is None or not anchor.snapshot_offset <= event.snapshot_offset <= asked:
                found.append(f"the anchor moved from {_name(anchor)} to {event.snapshot_offset}, tested was {asked}")
        if told != due:
            found.append(f"at {one.offset} the test of {event.against} and {event.run} said {event.verdict}: {told}")
        if due:
            moved[event.against, due[0]] += 1
    return found + [f"{what} happened {times} times" for what, times in moved.items() if times > 1]


def _barred(decided, learned):
    """A request about a range has one answer; what learned it serves no more, unless nothing else could."""
    found, barred, answers = [], (), Counter()
    requests = {one.event.request: one for one in decided if _is_about_a_range(one.event)}
    asked_at = {}
    for one in decided:
        event = one.event
        if isinstance(event, RangeBarred | RequestRefused) and event.request in requests:
            answers[event.request] += 1
        if _is_about_a_range(event):
            asked_at[event.request] = one
    told = {one.event.request: one.event for one in decided if isinstance(one.event, RangeBarred)}
    for one in decided:
        event = one.event
        if one is asked_at.get(getattr(event, "request", None)) and event.request in told:
            barred = union(barred, event.bad_ranges)
            if told[event.request].parts != union(event.bad_ranges):
                found.append(f"{told[event.request].parts} were barred, asked were {event.bad_ranges}")
            after = {**one.aliases, **{move.alias: move for move in one.moves}}
            for alias in ("challenger", "previous"):
                move = after.get(alias)
                if isinstance(move, ModelUpdated) and meet(learned.of(move), union(event.bad_ranges)):
                    found.append(f"{_name(move)} learned {event.bad_ranges} and is {alias}")
            champion = after.get("champion")
            if event.uri is not None and champion is not None and meet(learned.of(champion), barred):
                found.append(f"{_name(champion)} serves on, it learned {event.bad_ranges}")
        for move in _champions(one):
            if meet(learned.of(move), barred):
                found.append(f"{_name(move)} became champion at {one.offset}, it learned of {barred}")
    for request in requests:
        if answers[request] != 1:
            found.append(f"{request} was answered {answers[request]} times")
    return found


def _is_about_a_range(event):
    return isinstance(event, RollbackAsked) and bool(event.bad_ranges)


def _forks(decided):
    """After a way back one run begins: with the model that serves, behind what made its successors worse."""
    found, returns = [], []
    asked = Counter(one.event.request for one in decided if isinstance(one.event, TrainingRequested))
    started = Counter(one.event.request for one in decided if isinstance(one.event, RunStarted))
    found += [f"{request} was asked for {times} times" for request, times in asked.items() if times > 1]
    found += [f"{request} was started {times} times" for request, times in started.items() if times > 1]
    by_request = {one.event.request: one.event for one in decided if isinstance(one.event, TrainingRequested)}
    pauses = [one.event for one in decided if isinstance(one.event, AutomationPaused)]
    for one in decided:
        event = one.event
        if isinstance(event, RangeBarred) and event.again_from is not None:
            fork = by_request.get(f"without-{event.request}")
            if fork is None or not started[fork.request]:
                found.append(f"{event.request} has no run that learns without the range")
            elif (fork.start, fork.parent) != (event.again_from, event.parent):
                found.append(f"{fork.request} starts at {fork.start}, {event.request} said {event.again_from}")
        for move in _champions(one):
            if move.follows or move.barred:
                continue
            fork = by_request.get(f"rollback-{move.epoch}")
            is_return = not isinstance(event, RollbackAsked)
            returns += [move] if is_return else []
            start = max(event.offset, move.snapshot_offset) if is_return else move.snapshot_offset
            if fork is None:
                if not (is_return and pauses):
                    found.append(f"{_name(move)} serves frozen and no run follows")
            elif (fork.start, fork.parent) != (start, move.uri):
                found.append(f"{fork.request} begins at {fork.start} with {fork.parent}, not at {start}, {move.uri}")
    again = [event for event in pauses if "since_s" in event.numbers]
    if len(again) > max(len(returns) - 1, 0):
        found.append(f"{len(returns)} returns to an anchor, and promotion was paused for {len(again)} of them")
    return found


def _led_on(decided, learned):
    """At rest no run learns what is barred but one that serves for want of another, or is on its way out."""
    barred, live, aliases = (), {}, {}
    for one in decided:
        event = one.event
        if isinstance(event, RangeBarred):
            barred = union(barred, event.parts)
        elif isinstance(event, RunStarted):
            live[event.run] = event
        elif isinstance(event, RunEnded):
            live.pop(event.run, None)
        aliases = {**one.aliases, **{move.alias: move for move in one.moves}}
    champion = aliases.get("champion")
    return [
        f"run {run} learns on, with what is barred: {barred}"
        for run, started in live.items()
        if meet(without(started.start_offset, END, started.excluded), from_on(started.start_offset, barred))
        and (champion is None or run != champion.run)
    ]


def _newer(made):
    """The anchor answers beside newer revisions of its run, never in their place."""
    found = []
    for event in made:
        anchor, champion = event.predictions.get("anchor"), event.predictions.get("champion")
        if event.served == "anchor":
            found.append(f"the anchor served {event.id}")
        if anchor is None or champion is None or anchor.run != champion.run:
            continue
        if anchor.learned_to > champion.learned_to:
            found.append(f"{event.id}: the anchor learned to {anchor.learned_to}, the champion {champion.learned_to}")
    return found
