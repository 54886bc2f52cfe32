"""A fold over the records of its input, step by step, and its state as a commit holds it."""

import importlib
import io
import pickle

import numpy as np

from headrace import model_bytes
from headrace.infra.records import Incoming
from headrace.infra.state_fields import lacking
from headrace.schemas.codec import encode
from headrace.schemas.topics import full_name


def core_of(fold):
    return importlib.import_module(fold.module)


def input_of(fold, system):
    """The messages of the fold's input topic, as the system left them."""
    topic = full_name(fold.input, "rain")
    return system.bus.read((topic, 0), 0, 1_000_000)


def records_of(fold, system):
    incoming = Incoming(full_name(fold.input, "rain"), "", decoders=getattr(core_of(fold), "DECODERS", None))
    return [record for record in map(incoming.record, input_of(fold, system)) if record is not None]


def fresh(core):
    return core.fresh("rain", 0) if hasattr(core, "fresh") else core.State()


def told(emits):
    return [(e.topic, e.pipeline, e.key, e.partition, encode(e.event) if e.body is None else e.body) for e in emits]


def kind_of(emit):
    return emit.type.split(".")[1] if emit.type else type(emit.event).__name__


def folded(core, records, between=lambda core, state: state):
    """Everything the fold tells and the state that it ends with; `between` may replace the state before each step."""
    state, outputs = fresh(core), []
    for record in records:
        state = between(core, state)
        outputs.append(told(core.step(state, record, core.example_world())))
    return outputs, digests_of(core, state)


def fields_of(core):
    return getattr(core.State, "__struct_fields__", None) or tuple(core.State.__dataclass_fields__)


def digests_of(core, state):
    """Of each field, as a commit holds it: an object in two of them may be two after a restart; a table is its rows."""
    parts = {name: getattr(state, name) for name in fields_of(core)}
    rows = {name: dict(parts[name].items()) for name in getattr(core, "TABLES", {})}
    return {name: model_bytes.digest(with_lists(part)) for name, part in (parts | rows).items()}


def with_lists(part):
    """A copy without arrays: the dtype of all of them is one object, and after a restart two equal ones."""
    out = io.BytesIO()
    pickler = pickle.Pickler(out)
    pickler.dispatch_table = {np.ndarray: lambda array: (list, (array.tolist(),))}
    pickler.dump(part)
    return pickle.loads(out.getvalue())


def restored(core, state):
    """The state as the next process gets it: its declared fields, each object within whole, else it is refused."""
    fields = pickle.loads(pickle.dumps({name: getattr(state, name) for name in fields_of(core)}))
    assert lacking(fields) is None
    return core.State(**fields)
