"""How objects travel between a pool and its workers: pickles, with large buffers beside them.

A message without large buffers is a pickle.  Any other begins with a head:

    magic, number of buffers, of places, size of the pickle | entries | places | the pickle | room

and each buffer follows at the offset that its entry says, aligned for any use.  What is received
is not copied out of the message: arrays are views of it, and keep its memory (a ``_weir.Lease``)
until the last of them is gone.

A buffer in a `SharedBuffer` is not in the message: its entry names a place (process, descriptor,
inode, size), where the receiver opens the memory.  So the sender has to keep it until then: with a
task it is kept until the task is done, with a reply until the parent has read it (`Replies`).
"""

from __future__ import annotations

import copyreg
import errno
import pickle
import struct
import sys
import time
from collections import ChainMap, deque
from multiprocessing.reduction import ForkingPickler
from pickle import PickleBuffer

from weir import _weir

TYPE_CHECKING = False  # as in weir/__init__.py
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Literal, TypeAlias

    Message: TypeAlias = Any  # a buffer, or a list of buffers that belong together
    Entry: TypeAlias = tuple[int, int, int, int]

PROTOCOL = 5
MIN_BUFFER = 64 << 10  # bytes; smaller buffers travel inside the pickle

_HEAD = struct.Struct("<4sIIIQ")
_ENTRY = struct.Struct("<QQII")  # offset in the message, or the shared memory; size; flags; place
_PLACE = struct.Struct("<QQQQ")
_MAGIC = b"\x01wb1"  # a pickle begins with 0x80
_READONLY = 1
_SHARED = 2
_ALIGNMENT = 64
_PAGE = 4096


# ---- what pickle 5 does not send out of band by itself ------------------------------------------


class _Raw:
    """Stands in a pickle for bytes or a bytearray whose content travels beside it."""

    __slots__ = ("value",)

    def __init__(self, value: bytes | bytearray) -> None:
        self.value = value

    def __reduce_ex__(self, protocol: Any) -> Any:
        return type(self.value), (PickleBuffer(self.value),)


def _is_raw(value: object) -> bool:
    kind = type(value)
    return (kind is bytes or kind is bytearray) and len(value) >= MIN_BUFFER  # type: ignore[arg-type]


def _wrap(value: Any, wrapped: dict[int, _Raw]) -> Any:
    if not _is_raw(value):
        return value
    return wrapped.setdefault(id(value), _Raw(value))  # one that comes twice is sent once


def _wrap_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    for value in args:
        if _is_raw(value):
            break
    else:
        for value in kwargs.values():
            if _is_raw(value):
                break
        else:
            return args, kwargs
    wrapped: dict[int, _Raw] = {}
    return (
        tuple([_wrap(value, wrapped) for value in args]),
        {name: _wrap(value, wrapped) for name, value in kwargs.items()},
    )


def _wrap_result(result: Any) -> Any:
    """The result, or the items of a tuple, list or dict."""
    kind = type(result)
    wrapped: dict[int, _Raw] = {}
    if kind is tuple or kind is list:
        if any(map(_is_raw, result)):
            return kind([_wrap(value, wrapped) for value in result])
    elif kind is dict and any(map(_is_raw, result.values())):
        return {name: _wrap(value, wrapped) for name, value in result.items()}
    return _wrap(result, wrapped)


def _rebuild_memoryview(data: Any, format: str, shape: tuple[int, ...]) -> memoryview:
    view = memoryview(data)
    if format == "B" and len(shape) == 1:
        return view
    return view.cast("B").cast(format, shape)  # type: ignore[call-overload, no-any-return]


def _reduce_memoryview(view: memoryview) -> Any:
    data: Any = view if view.c_contiguous else view.tobytes()
    return _rebuild_memoryview, (PickleBuffer(data), view.format, view.shape)


def _rebuild_shared(data: Any) -> _weir.SharedBuffer:
    if type(data) is memoryview and type(data.obj) is _weir.SharedBuffer:
        return data.obj
    copy = _weir.SharedBuffer(len(data))  # it came through another pickler
    with memoryview(copy) as view:
        view[:] = data
    return copy


def reduce_shared(shared: _weir.SharedBuffer, protocol: int) -> Any:
    """``SharedBuffer.__reduce_ex__``."""
    return _rebuild_shared, (PickleBuffer(shared) if protocol >= 5 else bytes(shared),)


# ---- sending ------------------------------------------------------------------------------------


class _Sink:
    __slots__ = ("write",)

    def __init__(self, write: Callable[[Any], None]) -> None:
        self.write = write


_DISPATCH_TABLE: Any = ChainMap(
    ForkingPickler._extra_reducers,  # type: ignore[attr-defined]
    copyreg.dispatch_table,
    {memoryview: _reduce_memoryview},
)


class _Pickler(pickle.Pickler):
    """A pickler that is used again: making one costs more than pickling a small task.

    It knows the reducers that ForkingPickler knows, at any time.
    """

    dispatch_table: Any = _DISPATCH_TABLE

    def __init__(self, min_buffer: int) -> None:
        chunks: list[Any] = []
        buffers: list[PickleBuffer] = []
        shared: dict[int, tuple[_weir.SharedBuffer, int]] = {}  # by index in buffers

        def keep_apart(buffer: PickleBuffer) -> bool:  # no method: what was pickled goes at once
            with buffer.raw() as view:  # BufferError: not contiguous
                found = _weir.find_shared(view)
                if found is not None:
                    shared[len(buffers)] = found
                elif view.nbytes < min_buffer:
                    return True
            buffers.append(buffer)
            return False

        super().__init__(_Sink(chunks.append), PROTOCOL, buffer_callback=keep_apart)
        self.chunks = chunks
        self.buffers = buffers
        self.shared = shared


# Those not in use; a thread takes one out, so none is shared.
_picklers: list[_Pickler] = []
_item_picklers: list[_Pickler] = []
_PICKLERS_MAX = 8


def _pickle(value: Any, picklers: list[_Pickler], min_buffer: int) -> bytes | _Pickler:
    """A small pickle without buffers, or the pickler that has the pieces and the buffers."""
    try:
        pickler = picklers.pop()
    except IndexError:
        pickler = _Pickler(min_buffer)
    pickler.dump(value)  # one that has failed is not used again
    chunks = pickler.chunks
    if pickler.buffers or len(chunks) > 1 or len(chunks[0]) >= MIN_BUFFER:
        return pickler  # nor this one: its memo stays as large as it once was
    pickler.clear_memo()
    if len(picklers) < _PICKLERS_MAX:
        picklers.append(pickler)
    return chunks.pop()  # type: ignore[no-any-return]


class Parts(list["Any"]):
    """A message in pieces, and the shared memory that it names."""

    shared: tuple[_weir.SharedBuffer, ...] = ()


def _head(chunks: list[Any], entries: list[Entry], places: list[tuple[int, ...]]) -> bytes:
    head = [_HEAD.pack(_MAGIC, len(entries), len(places), 0, sum(map(len, chunks)))]
    head += [_ENTRY.pack(*entry) for entry in entries]
    head += [_PLACE.pack(*place) for place in places]
    return b"".join(head + chunks)


def _flags(view: memoryview) -> int:
    return _READONLY if view.readonly else 0


def _align(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment


def _message(pickled: _Pickler) -> Parts:
    chunks = pickled.chunks
    views = [buffer.raw() for buffer in pickled.buffers]
    if not views:
        return Parts(chunks)
    places: dict[_weir.SharedBuffer, int] = {}
    for shared, _ in pickled.shared.values():
        places.setdefault(shared, len(places))
    offset = _HEAD.size + len(views) * _ENTRY.size + len(places) * _PLACE.size
    offset += sum(map(len, chunks))
    total = sum(view.nbytes for i, view in enumerate(views) if i not in pickled.shared)
    # Large buffers get pages of their own; and a result that lies where its argument came finds
    # room for its head.
    offset = _align(offset, _PAGE if total >= 16 * _PAGE else _ALIGNMENT)
    entries: list[Entry] = []
    beside: list[tuple[int, memoryview]] = []
    for i, view in enumerate(views):
        if i in pickled.shared:
            shared, begin = pickled.shared[i]
            entries.append((begin, view.nbytes, _flags(view) | _SHARED, places[shared]))
        else:
            entries.append((offset, view.nbytes, _flags(view), 0))
            beside.append((offset, view))
            offset = _align(offset + view.nbytes, _ALIGNMENT)
    parts = Parts([_head(chunks, entries, [shared.place() for shared in places])])
    parts.shared = tuple(places)
    at = len(parts[0])
    for begin, view in beside:
        if begin > at:
            parts.append(bytes(begin - at))
        parts.append(view)
        at = begin + view.nbytes
    return parts


def dump_call(fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Message:
    """A task as a message."""
    if args or kwargs:
        args, kwargs = _wrap_call(args, kwargs)
    pickled = _pickle((fn, args, kwargs), _picklers, MIN_BUFFER)
    return pickled if type(pickled) is bytes else _message(pickled)  # type: ignore[arg-type]


class InPlace:
    """A reply whose buffers lie in the task's own message: with this head it is the reply."""

    __slots__ = ("head",)

    def __init__(self, head: bytes) -> None:
        self.head = head


def _in_place(pickled: _Pickler, worker: _weir.Worker, room: int, size: int) -> InPlace | None:
    """None: some buffer lies elsewhere, or the head is too long, or much of the task is not in the
    reply."""
    entries: list[Entry] = []
    total = 0
    for buffer in pickled.buffers:
        with buffer.raw() as view:
            begin = worker.offset_of(view)
            if begin < room:
                return None
            entries.append((begin, view.nbytes, _flags(view), 0))
            total += view.nbytes
    if total < size - size // 8:
        return None
    head = _head(pickled.chunks, entries, [])
    return InPlace(head) if len(head) <= room else None


def room_of(message: memoryview) -> int:
    """How much of a message may be written over before its first buffer; 0: nothing."""
    if message[0] == 0x80 or not _is_lasting(message):
        return 0
    _magic, n, _n_places, _, _size = _HEAD.unpack_from(message)
    for i in range(n):
        begin, _size, flags, _place = _ENTRY.unpack_from(message, _HEAD.size + i * _ENTRY.size)
        if not flags & _SHARED:
            return begin  # type: ignore[no-any-return]
    return 0


def dump_item(value: Any, shared: list[_weir.SharedBuffer]) -> bytes:
    """An argument or a result of a batch, in one piece; shared memory is not in it, but added to
    what the sender has to keep."""
    pickled = _pickle(value, _item_picklers, sys.maxsize)
    if isinstance(pickled, bytes):
        return pickled
    parts = _message(pickled)
    shared.extend(parts.shared)
    return b"".join(parts)


def dump_result(result: Any, worker: _weir.Worker, room: int, size: int) -> Message | InPlace:
    """What a task returns, as a message; room and size are those of the task's."""
    pickled = _pickle(_wrap_result(result), _picklers, MIN_BUFFER)
    if isinstance(pickled, bytes):
        return pickled
    reply = _in_place(pickled, worker, room, size) if pickled.buffers and room else None
    return _message(pickled) if reply is None else reply


class Replies:
    """A worker's way to take tasks and reply to them.

    What it names in a reply and has created itself, it keeps until the parent has read that.
    """

    _LOOK_EVERY = 0.05  # seconds, while something is kept

    def __init__(self, worker: _weir.Worker) -> None:
        self._worker = worker
        self._kept: deque[tuple[int, tuple[_weir.SharedBuffer, ...]]] = deque()

    def take(self) -> memoryview | Literal[True] | None:
        """The next task; True: a batch; None: leave."""
        while self._kept:
            self._let_go()
            try:
                task = self._worker.take_within(self._LOOK_EVERY)
            except TimeoutError:
                continue
            if task is None:
                self._wait_until_read()
            return task
        return self._worker.take()

    def send(self, status: int, reply: Message | InPlace) -> None:
        if isinstance(reply, InPlace):
            self._worker.reply_in_place(status, reply.head)
            return
        self._worker.reply(status, reply)
        if isinstance(reply, Parts) and reply.shared:
            position, _read = self._worker.positions()
            self._kept.append((position, reply.shared))

    def run_batch(self, dump_error: Callable[[BaseException], Any]) -> None:
        """Runs the items of the batch that was taken."""
        shared: list[_weir.SharedBuffer] = []
        self._worker.run_batch(load, lambda value: dump_item(value, shared), dump_error)
        if shared:
            position, _read = self._worker.positions()
            self._kept.append((position, tuple(shared)))

    def _let_go(self) -> None:
        _replied, read = self._worker.positions()
        while self._kept and self._kept[0][0] <= read:
            self._kept.popleft()

    def _wait_until_read(self) -> None:
        while self._kept:
            self._let_go()
            time.sleep(0.002)


# ---- receiving ----------------------------------------------------------------------------------


def _is_lasting(message: memoryview) -> bool:
    return type(message.obj) is _weir.Lease


class SharedMemoryGone(OSError):
    """A message names shared memory that its sender has closed, or did not live to hand over."""

    def __init__(self, text: str, pid: int) -> None:
        super().__init__(errno.EIO, text)
        self.pid = pid


def _open_shared(place: tuple[int, ...]) -> _weir.SharedBuffer:
    try:
        return _weir.open_shared(*place)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        raise SharedMemoryGone(error.strerror or "", place[0]) from None


def load(message: memoryview) -> Any:
    """The object of a message, which the caller may release afterwards.

    Buffers are views of the message if it is leased, else copies.
    """
    if message[0] == 0x80:
        return pickle.loads(message)
    _magic, n, n_places, _, size = _HEAD.unpack_from(message)
    entries = [_ENTRY.unpack_from(message, _HEAD.size + i * _ENTRY.size) for i in range(n)]
    at = _HEAD.size + n * _ENTRY.size
    places = [_PLACE.unpack_from(message, at + i * _PLACE.size) for i in range(n_places)]
    at += n_places * _PLACE.size
    shared = [memoryview(_open_shared(place)) for place in places]
    data = message
    if n > 0 and not _is_lasting(message):
        data = memoryview(bytearray(message))
    buffers = []
    for begin, length, flags, place in entries:
        view = (shared[place] if flags & _SHARED else data)[begin : begin + length]
        buffers.append(view.toreadonly() if flags & _READONLY else view)
    with message[at : at + size] as pickled:
        return pickle.loads(pickled, buffers=buffers)
