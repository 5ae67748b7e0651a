"""A tar archive read as a stream: entries in order, each with its content in pieces.

One place decides what an entry is called and how long it is: the block's own fields, then PAX
records over them, then GNU's long names. The bytes that are skipped to reach the next header are
always the ones that decision says, so no PAX size can make this reader disagree with itself.

Refused, because readers differ on it: two extensions of one kind before an entry, a name, link,
size or sparse map in a *global* PAX header, volumes and dumps, unknown kinds. Allowed: no zero
blocks at the end, a lone zero block, anything behind two zero blocks (hashed, never read).
"""

from __future__ import annotations

from runtime.errors import InvalidArchive, LimitExceeded
from runtime.images.tarheader import (
    BLOCK,
    CONTIGUOUS,
    DIRECTORY,
    EXTENSIONS,
    GNU_LONG_LINK,
    GNU_LONG_NAME,
    GNU_SPARSE,
    GNU_VOLUME,
    PAX,
    PAX_GLOBAL,
    REGULAR,
    WITHOUT_CONTENT,
    ZEROS,
    check_id,
    header_number,
    parse_header,
    parse_pax,
    pax_number,
    pax_text,
    pax_time,
    pax_xattrs,
    printable,
    sparse_pairs,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from runtime.images.limits import Limits
    from runtime.images.tarheader import Header

    Records = Mapping[bytes, list[bytes]]

_KINDS = WITHOUT_CONTENT | {REGULAR, CONTIGUOUS, GNU_SPARSE}
_DANGEROUS_FOR_ALL = (b"path", b"linkpath", b"size", b"GNU.sparse", b"SCHILY.realsize")
_EMPTY = memoryview(b"")


class Entry:
    """One member of the archive.

    name: bytes as the archive has them; nothing is cleaned or resolved.
    link: target of a hard or symbolic link.
    kind: one of the constants of `tarheader`; sparse and contiguous files read as REGULAR.
    mtime: nanoseconds since 1970.
    size: what the file will have, holes included.
    regions: for a sparse file (offset, length) of its data in order, else None.
    xattrs: name to value, or None.
    offset: where the entry's own header begins in the archive.
    """

    __slots__ = (
        "device_major",
        "device_minor",
        "gid",
        "kind",
        "link",
        "mode",
        "mtime",
        "name",
        "offset",
        "regions",
        "size",
        "uid",
        "xattrs",
    )

    def __init__(self, header: Header, offset: int) -> None:
        self.kind = header.kind
        self.name = header.name
        self.link = header.link
        self.mode = header.mode
        self.uid = header.uid
        self.gid = header.gid
        self.size = header.size
        self.mtime = header.mtime
        self.device_major = header.device_major
        self.device_minor = header.device_minor
        self.offset = offset
        self.regions: list[tuple[int, int]] | None = None
        self.xattrs: dict[bytes, bytes] | None = None


class ArchiveReader:
    """`while entry := reader.next(): while piece := reader.piece(): ...`

    `source` gives the next bytes of the archive, any number but none only at its end. Content that
    was not read is skipped. A piece is a view into the source's bytes: use it before the next call.
    """

    def __init__(self, source: Callable[[], bytes], limits: Limits) -> None:
        self._source = source
        self._limits = limits
        self._chunk = b""
        self._view = _EMPTY
        self._at = 0  # in the chunk
        self._before = 0  # bytes of all earlier chunks
        self._left = 0  # content not yet read
        self._padding = 0
        self._entries = 0
        self._globals: dict[bytes, list[bytes]] = {}
        self._zero_block = False
        self._ended = False

    @property
    def offset(self) -> int:
        """How much of the archive has been read."""
        return self._before + self._at

    def next(self) -> Entry | None:
        """The next entry, or None at the end. Raises: InvalidArchive, LimitExceeded."""
        extensions: dict[bytes, bytes] = {}
        while True:
            if self._left or self._padding:
                self._skip()
            offset = self._before + self._at
            block = self._block()
            if block is None:
                if extensions:
                    raise InvalidArchive("the archive ends before an entry does", offset=offset)
                return None
            self._entries += 1
            if self._entries > self._limits.entries:
                raise LimitExceeded(
                    f"more than {self._limits.entries} entries in one layer", limit="entries"
                )
            header = parse_header(block, offset)
            kind = header.kind
            if kind == GNU_VOLUME and not extensions and not header.size:
                continue
            if kind not in EXTENSIONS:
                break
            content = self._extension(header.size, offset)
            if kind == PAX_GLOBAL:
                self._remember_globals(content, offset)
            elif kind in extensions:
                raise InvalidArchive("two extension headers for one entry", offset=offset)
            else:
                extensions[kind] = content
        entry = Entry(header, offset)
        if kind not in _KINDS:
            raise InvalidArchive(f"entry of the unknown kind {kind!r}", offset=offset)
        records = self._extend(entry, extensions) if extensions or self._globals else None
        if kind in WITHOUT_CONTENT or entry.kind == DIRECTORY:
            entry.size = 0
        else:
            self._left = entry.size
            self._padding = -entry.size % BLOCK
            if kind == GNU_SPARSE:
                self._read_old_sparse(entry, block)
            elif records:
                self._read_pax_sparse(entry, records)
        entry.kind = REGULAR if kind in (GNU_SPARSE, CONTIGUOUS) else entry.kind
        return entry

    def piece(self) -> memoryview:
        """More content of the current entry, as much as is at hand; empty when there is no more.

        Raises: InvalidArchive if the archive ends first.
        """
        left = self._left
        if not left:
            return _EMPTY
        at = self._at
        if at >= len(self._chunk):
            self._fill("the archive ends inside a file")
            at = 0
        stop = at + left
        size = len(self._chunk)
        if stop > size:
            stop = size
        self._at = stop
        self._left = left - (stop - at)
        return self._view[at:stop]

    def finish(self) -> None:
        """Read the source to its end, so that whoever hashes it has seen every byte."""
        self._before += len(self._chunk)
        self._chunk, self._view, self._at = b"", _EMPTY, 0
        while more := self._source():
            self._before += len(more)

    def _extend(self, entry: Entry, extensions: dict[bytes, bytes]) -> Records | None:
        """Lay everything that came before the entry over it; return its own PAX records."""
        offset = entry.offset
        records = None
        if self._globals:
            self._apply(entry, self._globals)
        if PAX in extensions:
            records = parse_pax(extensions[PAX], offset)
            self._apply(entry, records)
        if GNU_LONG_NAME in extensions:
            entry.name = _long_name(extensions[GNU_LONG_NAME], offset)
        if GNU_LONG_LINK in extensions:
            entry.link = _long_name(extensions[GNU_LONG_LINK], offset)
        if entry.kind == REGULAR and entry.name[-1:] == b"/":
            if entry.size:
                raise InvalidArchive("a regular file whose name ends in a slash", offset=offset)
            entry.kind = DIRECTORY
        return records

    def _apply(self, entry: Entry, records: Records) -> None:
        """Lay PAX records over the header's fields. An empty value means the header's own."""
        offset = entry.offset
        for keyword, values in records.items():
            raw = values[-1]
            if keyword == b"path" and raw:
                entry.name = pax_text(raw, "path", offset)
            elif keyword == b"linkpath" and raw:
                entry.link = pax_text(raw, "linkpath", offset)
            elif keyword == b"size" and raw:
                entry.size = pax_number(raw, "size", offset)
            elif keyword == b"mtime" and raw:
                entry.mtime = pax_time(raw, offset)
            elif (keyword == b"uid" or keyword == b"gid") and raw:
                try:
                    found = check_id(pax_number(raw, "id", offset))
                except ValueError as error:
                    raise InvalidArchive(str(error), offset=offset) from None
                if keyword == b"uid":
                    entry.uid = found
                else:
                    entry.gid = found
        entry.xattrs = pax_xattrs(records, self._limits.xattr_bytes, offset) or entry.xattrs

    def _remember_globals(self, content: bytes, offset: int) -> None:
        for keyword, values in parse_pax(content, offset).items():
            if keyword.startswith(_DANGEROUS_FOR_ALL):
                raise InvalidArchive(
                    f"global PAX header that sets {printable(keyword)} of every entry",
                    offset=offset,
                )
            if values[-1]:
                self._globals[keyword] = values[-1:]
            else:
                self._globals.pop(keyword, None)
        if sum(len(k) + len(v[0]) for k, v in self._globals.items()) > self._limits.extension_bytes:
            raise LimitExceeded("too many global PAX records", limit="extension_bytes")

    def _read_old_sparse(self, entry: Entry, block: bytes) -> None:
        """GNU's kind S: four regions in the header, then blocks of 21, each saying if one more."""
        offset = entry.offset
        try:
            pairs = sparse_pairs(block[386:482])
            more = block[482]
            while more:
                extra = self._block()
                if extra is None:
                    raise InvalidArchive("the archive ends in a sparse map", offset=offset)
                pairs += sparse_pairs(extra[:504])
                self._check_regions(len(pairs))
                more = extra[504]
        except ValueError as error:
            raise InvalidArchive(str(error), offset=offset) from None
        self._set_regions(entry, pairs, header_number(block[483:495], offset))

    def _read_pax_sparse(self, entry: Entry, records: Records) -> None:
        """GNU's PAX forms: 0.0 repeats keywords, 0.1 has one list, 1.0 begins the content."""
        offset = entry.offset
        major = records.get(b"GNU.sparse.major", [b""])[-1]
        minor = records.get(b"GNU.sparse.minor", [b""])[-1]
        real_size = records.get(b"GNU.sparse.realsize") or records.get(b"GNU.sparse.size")
        if not real_size:
            if any(keyword.startswith(b"GNU.sparse.") for keyword in records):
                raise InvalidArchive("sparse file without its real size", offset=offset)
            return
        if name := records.get(b"GNU.sparse.name"):
            entry.name = pax_text(name[-1], "GNU.sparse.name", offset)
        if (major, minor) == (b"1", b"0"):
            numbers = self._sparse_content_map(offset)
        elif (major, minor) in ((b"", b""), (b"0", b"0"), (b"0", b"1")):
            if listed := records.get(b"GNU.sparse.map"):
                fields = listed[-1].split(b",") if listed[-1] else []
            else:
                starts = records.get(b"GNU.sparse.offset", [])
                lengths = records.get(b"GNU.sparse.numbytes", [])
                if len(starts) != len(lengths):
                    raise InvalidArchive("sparse map with half a region", offset=offset)
                fields = [field for pair in zip(starts, lengths, strict=True) for field in pair]
            self._check_regions(len(fields) // 2)
            numbers = [pax_number(field, "sparse map", offset) for field in fields]
        else:
            raise InvalidArchive("sparse file of an unknown version", offset=offset)
        if len(numbers) % 2:
            raise InvalidArchive("sparse map with half a region", offset=offset)
        pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
        self._set_regions(entry, pairs, pax_number(real_size[-1], "real size", offset))

    def _sparse_content_map(self, offset: int) -> list[int]:
        """Version 1.0: decimal lines, the count of regions first, padded to a whole block."""
        text = b""
        wanted = 1
        numbers: list[int] = []
        while len(numbers) < wanted:
            if self._left < BLOCK:
                raise InvalidArchive("sparse map longer than its file", offset=offset)
            block = self._block()
            if block is None:
                raise InvalidArchive("the archive ends in a sparse map", offset=offset)
            self._left -= BLOCK
            *lines, text = (text + block).split(b"\n")
            for line in lines:
                if len(numbers) < wanted:
                    numbers.append(pax_number(line, "sparse map", offset))
                    if len(numbers) == 1:
                        self._check_regions(numbers[0])
                        wanted = 1 + 2 * numbers[0]
            if len(text) > BLOCK:
                text = text[:BLOCK]  # no number is that long: the next round refuses it
        return numbers[1:]

    def _check_regions(self, count: int) -> None:
        if count > self._limits.sparse_regions:
            raise LimitExceeded(
                f"a sparse file with more than {self._limits.sparse_regions} regions",
                limit="sparse_regions",
            )

    def _set_regions(self, entry: Entry, pairs: list[tuple[int, int]], real_size: int) -> None:
        end = 0
        for start, length in pairs:
            if start < end or length < 0 or start + length > real_size:
                raise InvalidArchive("sparse regions out of order or size", offset=entry.offset)
            end = start + length
        if real_size < 0 or sum(length for _, length in pairs) != self._left:
            raise InvalidArchive("sparse regions do not match the content", offset=entry.offset)
        entry.regions = pairs
        entry.size = real_size

    def _extension(self, size: int, offset: int) -> bytes:
        if size > self._limits.extension_bytes:
            raise LimitExceeded(
                f"an extension header of {size} bytes, at most {self._limits.extension_bytes}",
                limit="extension_bytes",
            )
        self._left, self._padding = size, -size % BLOCK
        parts = []
        while piece := self.piece():
            parts.append(bytes(piece))
        return b"".join(parts)

    def _block(self) -> bytes | None:
        """The next 512 bytes; None at the end: of the source, or where two zero blocks are."""
        if self._ended:
            return None
        while True:
            at = self._at
            block = self._chunk[at : at + BLOCK]
            if len(block) == BLOCK:
                self._at = at + BLOCK
            else:
                short = self._straddling_block(block)
                if short is None:
                    return None
                block = short
            if block[0] or block != ZEROS:
                self._zero_block = False
                return block
            if self._zero_block:
                self._ended = True
                return None
            self._zero_block = True

    def _straddling_block(self, block: bytes) -> bytes | None:
        self._at = len(self._chunk)
        while len(block) < BLOCK:
            more = self._source()
            if not more:
                self._ended = True
                if block:
                    raise InvalidArchive("the archive ends inside a header", offset=self.offset)
                return None
            self._take_chunk(more)
            missing = BLOCK - len(block)
            block += more[:missing]
            self._at = min(missing, len(more))
        return block

    def _fill(self, problem: str) -> None:
        more = self._source()
        if not more:
            raise InvalidArchive(problem, offset=self.offset)
        self._take_chunk(more)

    def _take_chunk(self, chunk: bytes) -> None:
        self._before += len(self._chunk)
        self._chunk = chunk
        self._view = memoryview(chunk)
        self._at = 0

    def _skip(self) -> None:
        """Pass over the rest of the current entry's content and its padding."""
        count = self._left + self._padding
        while count > (available := len(self._chunk) - self._at):
            count -= available
            self._fill("the archive ends inside a file")
        self._at += count
        self._left = self._padding = 0


def _long_name(raw: bytes, offset: int) -> bytes:
    """GNU's L and K: a name that ends at its first NUL."""
    name, _, rest = raw.partition(b"\0")
    if rest.strip(b"\0"):
        raise InvalidArchive("long name with a NUL byte inside", offset=offset)
    return name
