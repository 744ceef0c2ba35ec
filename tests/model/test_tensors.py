"""The header readers, against what the formats' own libraries write, and against damage."""

import base64
import io
import json
import mmap
import struct
import zipfile
import zlib

import gguf
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from mregfs.model import tensors
from mregfs.model.tensors import Region, Tensor, TensorTable, read_tensors

ARRAYS = {
    "embed": np.arange(48, dtype=np.float16).reshape(8, 6),
    "layers.0.norm": np.arange(5, dtype=np.float32),
    "scalar": np.array(7, dtype=np.int64),
    "empty": np.zeros((0, 4), dtype=np.float32),
}

# torch 2.13.0: torch.save({"w": arange(6).reshape(2, 3).float(), "b": arange(4)}, "tiny.pt")
TINY_PT = zlib.decompress(
    base64.b85decode(
        "c-o~^!Ee$~7=LY9sbx%u%*`w@iwA>Ip=Hp4$=s}_mzsze6XK;Qr9xvz_sU~)CMG0iOLlV}JR0v_yy?Mz!n-#Q#"
        "*>Hr1HRW5))vP$ec|zF`F_9e*YEp&P*a%%02~L#RvOF!WOa86Egk9k&F8iv&w{7%HK1QXkZVvFunj2#Ij+&kYk"
        "g$dJzjIoX5X?~8Zx^*$JMrqJfw5EMiK}2aHQTgA>%`M#ddV`*uTlcghwdAsRn~jW3vxgl|?Z5NChgbGJB9y8I{"
        "_D=k^W5v2D{pmecL=58amOnyvemfq2MYufr6A({-5k*qU&rgR^&r86P;^_9)?bFGPeFI;@&NaF!%W?81yn?ZS)"
        "u9m17GaIOw7_473~$rW`ydx#Na*N!b=7Nq<V=ASw4hK{r?)9qoUikuu)QY37je}8{X@>3Jp=E3cNEhwI*+g7`~"
        "VRn%sOXICM)sjj?z}hzaMdK9oL;*8E_60O|km-<GEApLx%sX7Rg^+C$4ZEv9F0(ibJ5fUl+&!Agf}qH&|0lp_9"
        "jxKEb^OA6fcJ-WqG<lj&w~a0#li`S3L!<JBHsXK&hNJ#1RWrY2~MJe&wzs^{CR1jj%jes*D)HhtEUjM%##e?-n"
        "XBe-2X*T4hGPB)Sl^DcmiMQ#C)37Qe^S$y%5ThC<>Kwaaj_p(uz<nR!c%f#FtW86sx6*u!66Oo=sjzU*G1ij-0"
        "2G@=7(-88&2kOnKyYEDjC3FB^f~qrhMN8)pdHXFkGkFk%?<Y@8%K|1%Mi3=Lwwi(|u+nu=iG(ID)XI50d~QDBY"
        "<1I0KnJTcP|;HM$*m|}&yxEOuT1ei2mHI-#=2BBA&TO$}3I}ZadeMt;0#FBp;@R2>TT1}l|eGKQt`>}rjVyALq"
    )
)


def table_of(data):
    return read_tensors(lambda offset, length: data[offset : offset + length], len(data))


def contents(data):
    table = table_of(data)
    return {t.name: (t.dtype, t.shape, data[t.start : t.end]) for t in table.tensors}


def safetensors_bytes(header, body=b""):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + body


def gguf_bytes(tmp_path, arrays, endianess=gguf.GGUFEndian.LITTLE, alignment=None):
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama", endianess=endianess)
    if alignment:
        writer.add_custom_alignment(alignment)
    writer.add_token_list([f"token-{n}" for n in range(3000)] + ["x" * 50_000, "y" * 70_000])
    writer.add_token_scores([0.5] * 3002)
    writer.add_bool("a.flag", True)
    for name, array in arrays.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def zip_bytes(entries, method=zipfile.ZIP_STORED, comment=b""):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.comment = comment
        for name, data in entries.items():
            archive.writestr(name, data)
    return out.getvalue()


# ---- what the libraries write ------------------------------------------------------------------


def test_safetensors_as_the_library_writes_it():
    data = safetensors.numpy.save(ARRAYS, metadata={"shape": "{not a tensor}", "dtype": "x"})

    table = table_of(data)

    assert table.format == "safetensors"
    assert table.regions[0] == Region(0, table.tensors[0].start, "header")
    assert contents(data) == {
        "embed": ("F16", (8, 6), ARRAYS["embed"].tobytes()),
        "layers.0.norm": ("F32", (5,), ARRAYS["layers.0.norm"].tobytes()),
        "scalar": ("I64", (), ARRAYS["scalar"].tobytes()),
        "empty": ("F32", (0, 4), b""),
    }


@pytest.mark.parametrize(
    ("endianess", "alignment"),
    [(gguf.GGUFEndian.LITTLE, None), (gguf.GGUFEndian.BIG, None), (gguf.GGUFEndian.LITTLE, 256)],
)
def test_gguf_as_the_library_writes_it(tmp_path, endianess, alignment):
    arrays = {name: ARRAYS[name] for name in ("embed", "layers.0.norm")}
    data = gguf_bytes(tmp_path, arrays, endianess, alignment)

    order = ">" if endianess is gguf.GGUFEndian.BIG else "<"
    assert contents(data) == {
        "embed": ("F16", (8, 6), arrays["embed"].astype(f"{order}f2").tobytes()),
        "layers.0.norm": ("F32", (5,), arrays["layers.0.norm"].astype(f"{order}f4").tobytes()),
    }
    table = table_of(data)
    assert table.format == "gguf"
    assert table.regions[0] == Region(0, table.tensors[0].start, "header")


def test_gguf_block_sizes_are_those_of_the_library():
    expected = {
        int(kind): (kind.name, *sizes)
        for kind, sizes in gguf.GGML_QUANT_SIZES.items()
        if int(kind) in tensors._GGML_TYPES
    }

    assert expected == tensors._GGML_TYPES


def test_gguf_tensor_of_an_unknown_type_reaches_to_the_next_one():
    def info(name, kind, offset):
        return struct.pack("<Q", len(name)) + name + struct.pack("<IQIQ", 1, 64, kind, offset)

    head = b"GGUF" + struct.pack("<IQQ", 3, 3, 0)
    head += info(b"c", 0, 352) + info(b"a", 999, 0) + info(b"b", 999, 96)
    start = -(-len(head) // 32) * 32
    data = head.ljust(start + 352 + 256, b"\0")

    expected = [("a", "type 999", 0, 96), ("b", "type 999", 96, 352), ("c", "F32", 352, 608)]
    found = [(t.name, t.dtype, t.start - start, t.end - start) for t in table_of(data).tensors]
    assert expected == found


def test_gguf_with_a_vocabulary_alone_has_a_header_and_no_tensors():
    data = b"GGUF" + struct.pack("<IQQ", 2, 0, 0)

    assert TensorTable("gguf", (), (Region(0, 24, "header"),)) == table_of(data)


def test_torch_archive_as_torch_writes_it():
    table = table_of(TINY_PT)

    assert table.format == "zip"
    assert [t.start % 64 for t in table.tensors] == [0, 0]
    assert contents(TINY_PT) == {
        "data/0": ("", (), np.arange(6, dtype=np.float32).tobytes()),
        "data/1": ("", (), np.arange(4, dtype=np.int64).tobytes()),
    }


def test_exported_torch_program_has_its_weights():
    data = zip_bytes(
        {
            "m/data/weights/weight_0": b"w" * 9,
            "m/data/weights/config.json": b"{}",
            "m/archive_format": b"pt2",
            "elsewhere/data/0": b"x",
        }
    )

    assert contents(data) == {"data/weights/weight_0": ("", (), b"w" * 9)}


def test_npz_arrays_begin_after_their_own_headers():
    out = io.BytesIO()
    np.savez(out, **ARRAYS, words=np.array(["a", "bc"]), pickled=np.array([{}], dtype=object))

    assert contents(out.getvalue()) == {
        "embed": ("<f2", (8, 6), ARRAYS["embed"].tobytes()),
        "layers.0.norm": ("<f4", (5,), ARRAYS["layers.0.norm"].tobytes()),
        "scalar": ("<i8", (), ARRAYS["scalar"].tobytes()),
        "empty": ("<f4", (0, 4), b""),
        "words": ("<U2", (2,), np.array(["a", "bc"]).tobytes()),
    }


def test_npy_entries_with_later_or_bad_headers():
    def npy(version, header, body=b"1234"):
        width = "<H" if version == 1 else "<I"
        return b"\x93NUMPY" + bytes([version, 0]) + struct.pack(width, len(header)) + header + body

    plain = b"{'descr': '<i4', 'fortran_order': False, 'shape': (1,), }\n"
    data = zip_bytes(
        {
            "second.npy": npy(2, plain),
            "structured.npy": npy(1, plain.replace(b"'<i4'", b"[('a', '<i4')]")),
            "long.npy": npy(1, plain + b" " * 5000),
            "cut.npy": npy(1, plain)[:20],
            "short.npy": b"\x93NUMPY",
            "other.npy": b"not an array at all",
        }
    )

    assert contents(data) == {"second": ("<i4", (1,), b"1234")}


def test_compressed_archive_has_places_but_no_tensors():
    out = io.BytesIO()
    np.savez_compressed(out, weights=np.zeros(1000))
    table = table_of(out.getvalue())

    assert table.tensors == ()
    assert [region.kind for region in table.regions] == ["compressed"]


def test_keras_archive_keeps_its_weights_opaque():
    data = zip_bytes({"config.json": b"{}", "model.weights.h5": b"\x89HDF\r\n\x1a\n" + b"w" * 100})
    table = table_of(data)

    assert table.tensors == ()
    assert [data[r.start : r.end] for r in table.regions] == [
        b"{}",
        b"\x89HDF\r\n\x1a\n" + b"w" * 100,
    ]


def test_archive_with_a_comment_and_latin_names_is_read():
    data = zip_bytes({"a/data.pkl": b"", "a/data/0": b"12", "\xe9": b"3"}, comment=b"c" * 500)

    assert contents(data) == {"data/0": ("", (), b"12")}


# ---- sizes beyond 32 bits ----------------------------------------------------------------------


def zip64_parts(root, lengths, put):
    """Lay out an archive of stored entries as torch does, with Zip64 fields throughout."""
    at = 0
    directory = b""
    for number, length in enumerate(lengths):
        name = f"{root}/data/{number}".encode() if number else f"{root}/data.pkl".encode()
        local = struct.pack("<4s5H3I2H", b"PK\x03\x04", 45, 0, 0, 0, 0, 0, 0, 0, len(name), 0)
        put(at, local + name)
        extra = struct.pack("<HHB", 0x6666, 1, 0)  # somebody else's field first
        extra += struct.pack("<HHQQQ", 1, 24, length, length, at)
        directory += struct.pack(
            "<4s6H3I5H2I", b"PK\x01\x02", 45, 45, 0, 0, 0, 0, 0, 0xFFFFFFFF, 0xFFFFFFFF,
            len(name), len(extra), 0, 0, 0, 0, 0xFFFFFFFF,
        ) + name + extra  # fmt: skip
        at += 30 + len(name) + length
    count = len(lengths)
    end = struct.pack(
        "<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, len(directory), at
    )
    end += struct.pack("<4sIQI", b"PK\x06\x07", 0, at + len(directory), 1)
    end += struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    put(at, directory + end)
    return at + len(directory) + len(end)


def test_archive_of_100_gigabytes_is_read_by_its_headers(tmp_path):
    with (tmp_path / "big.pt").open("w+b") as file:

        def put(at, data):
            file.seek(at)
            file.write(data)

        size = zip64_parts("big", [10, 60 << 30, 7, 40 << 30], put)
        file.flush()
        with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as data:
            reads = []

            def read(offset, length):
                reads.append(length)
                return data[offset : offset + length]

            table = read_tensors(read, size)

    expected = {"data/1": 60 << 30, "data/2": 7, "data/3": 40 << 30}
    assert expected == {t.name: t.end - t.start for t in table.tensors}
    assert sum(reads) < 100_000


# ---- damage: None, never an error, bounded work ------------------------------------------------


def tensor_entry(start, end, **more):
    return {"dtype": "U8", "shape": [end - start], "data_offsets": [start, end], **more}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{" * 64,
        safetensors_bytes({"a": tensor_entry(0, 9)}, b"12345678"),
        safetensors_bytes({"a": tensor_entry(-1, 4)}, b"12345678"),
        safetensors_bytes({"a": tensor_entry(4, 3)}, b"12345678"),
        safetensors_bytes({"a": tensor_entry(0, 1 << 80)}, b"12345678"),
        safetensors_bytes({"a": tensor_entry(0, 8, shape=[1] * 65)}, b"12345678"),
        safetensors_bytes({"a": tensor_entry(0, 8, shape="8")}, b"12345678"),
        safetensors_bytes({"a": {"dtype": "U8"}}, b"12345678"),
        safetensors_bytes(b'{"a": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"),
        safetensors_bytes(b'{"\xff": 1}', b"12345678"),
        safetensors_bytes(b'{"a": {}', b"12345678"),
        struct.pack("<Q", 1 << 63) + b"{" * 64,
        struct.pack("<Q", 1000) + b"{" * 64,
        b"GGUF" + bytes(64),
        b"GGUF" + struct.pack("<IQQ", 1, 0, 0),
        b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60),
        b"GGUF" + struct.pack("<IQQ", 3, 1, 0),
        b"GGUF" + struct.pack("<IQQQ", 3, 1, 0, 1 << 63) + bytes(99),
        b"GGUF" + struct.pack("<IQQQII", 3, 1, 0, 0, 65, 0) + bytes(999),
        b"GGUF" + struct.pack("<IQQQIQIQ", 3, 1, 0, 0, 1, 1 << 40, 0, 0) + bytes(99),
        b"GGUF" + struct.pack("<IQQQIQ", 3, 0, 1, 0, 8, 1 << 63) + bytes(99),
        b"GGUF" + struct.pack("<IQQQIIQ", 3, 0, 1, 0, 9, 8, 1 << 62) + bytes(99),
        b"GGUF" + struct.pack("<IQQQIIQ", 3, 0, 1, 0, 9, 9, 1) + bytes(99),
        b"GGUF" + struct.pack("<IQQQ17sII", 3, 0, 1, 17, b"general.alignment", 4, 0) + bytes(99),
        b"PK\x03\x04" + bytes(64),
        b"PK\x03\x04" + bytes(64) + b"PK\x05\x06" + struct.pack("<4H2IH", 0, 0, 1, 1, 99, 0, 0),
        b"PK\x03\x04" + bytes(64) + b"PK\x05\x06" + struct.pack("<4H2IH", 0, 0, 1, 1, 9, 0, 0),
        b"PK\x03\x04" + bytes(64) + b"PK\x05\x06" + struct.pack("<4H2IH", 0, 0, 1, 1, 60, 0, 0),
        b"PK\x03\x04" + bytes(64) + b"PK\x05\x06" + struct.pack("<4H2IH", 0, 1, 1, 1, 9, 0, 0),
        b"PK\x03\x04" + bytes(64) + b"PK\x05\x06" + struct.pack("<4H2IH", 0, 0, 1, 1, 9, 0, 1),
        b"PK\x03\x04" + bytes(64) + b"PK\x05\x06" + b"\xff" * 18,
        b"PK\x03\x04" + bytes(64) + b"PK\x05\x06" + b"\0\0\0\0" + b"\xff" * 12 + b"\0\0",
    ],
)  # fmt: skip
def test_broken_header_is_no_header(data):
    assert table_of(data) is None


def damaged_zip64(change=(b"", b"")):
    """An archive that is right but for the first bytes of `change`, replaced by the second."""
    data = bytearray()

    def put(at, piece):
        data.extend(bytes(at - len(data)) + piece)

    zip64_parts("a", [3, 40], put)
    old, new = change
    assert old in data
    assert len(old) == len(new)
    return bytes(data.replace(old, new) if old else data)


@pytest.mark.parametrize(
    "change",
    [
        (b"PK\x06\x06", b"PK\x06\x05"),
        (b"PK\x06\x07", b"PK\x06\x05"),
        (b"PK\x03\x04\x2d", b"PK\x03\x05\x2d"),
        (b"PK\x01\x02", b"PK\x01\x03"),
        (struct.pack("<HH", 1, 24), struct.pack("<HH", 1, 8)),
        (struct.pack("<HH", 1, 24), struct.pack("<HH", 2, 24)),
        (struct.pack("<QQ", 40, 40), struct.pack("<QQ", 400, 400)),
        (struct.pack("<QQQ", 3, 3, 0), struct.pack("<QQQ", 3, 3, 1 << 50)),
        (struct.pack("<QQ", 2, 2), struct.pack("<QQ", 1 << 40, 1 << 40)),
    ],
)
def test_damaged_zip64_archive_is_no_archive(change):
    assert table_of(damaged_zip64()) is not None
    damaged = damaged_zip64(change)

    assert table_of(b"PK\x03\x04" + damaged[4:]) is None


def test_overlapping_tensors_are_all_listed_and_the_first_region_counts():
    header = {"a": tensor_entry(0, 6), "b": tensor_entry(4, 8), "c": tensor_entry(6, 8)}
    table = table_of(safetensors_bytes(header, b"12345678"))
    base = table.regions[0].end

    assert [t.name for t in table.tensors] == ["a", "b", "c"]
    expected = [(0, 6), (6, 8)]
    assert expected == [(r.start - base, r.end - base) for r in table.regions[1:]]


def test_header_that_would_make_millions_of_objects_is_not_decoded(monkeypatch):
    monkeypatch.setattr(tensors, "MAX_TENSORS", 2)
    many = {str(n): tensor_entry(0, 1) for n in range(3)}
    assert table_of(safetensors_bytes(many, b"1")) is None

    monkeypatch.setattr(tensors, "_MAX_COMMAS", 2)
    wide = {"a": tensor_entry(0, 1, shape=[1, 1, 1])}
    assert table_of(safetensors_bytes(wide, b"1")) is None


def test_gguf_with_too_many_strings_is_not_read(monkeypatch):
    monkeypatch.setattr(tensors, "_MAX_STRINGS", 2)
    data = b"GGUF" + struct.pack("<IQQQIIQ", 3, 0, 1, 0, 9, 8, 3) + bytes(24)

    assert table_of(data) is None


@pytest.fixture(scope="module")
def valid_files(tmp_path_factory):
    npz = io.BytesIO()
    np.savez(npz, **ARRAYS)
    arrays = {name: ARRAYS[name] for name in ("embed", "layers.0.norm")}
    model = gguf_bytes(tmp_path_factory.mktemp("gguf"), arrays)
    return [safetensors.numpy.save(ARRAYS), model, TINY_PT, npz.getvalue(), damaged_zip64()]


def check_sane(data):
    """The promises that hold for any bytes: no error, all in range, bounded reading."""
    reads = []

    def read(offset, length):
        assert offset >= 0
        assert length >= 0
        reads.append(length)
        return data[offset : offset + length]

    table = read_tensors(read, len(data))
    assert sum(reads) <= 8 * len(data) + (1 << 20)
    if table is None:
        return
    for tensor in table.tensors:
        assert isinstance(tensor, Tensor)
        assert 0 <= tensor.start <= tensor.end <= len(data)
    end = 0
    for region in table.regions:
        assert end <= region.start < region.end <= len(data)
        end = region.end


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from([b"", b"GGUF\x03\0\0\0", b"PK\x03\x04", b"\x20\0\0\0\0\0\0\0{"]), st.binary()
)
def test_arbitrary_bytes_never_raise(magic, data):
    check_sane(magic + data)


@settings(deadline=None, max_examples=150)
@given(
    st.integers(0, 4),
    st.lists(st.tuples(st.integers(-300, 300), st.binary(min_size=1, max_size=9)), max_size=4),
    st.integers(0, 50),
)
def test_mutated_files_never_raise(valid_files, which, patches, cut):
    data = bytearray(valid_files[which])
    for at, patch in patches:  # counted from the end too: there a zip has its header
        data[at : at + len(patch)] = patch
    check_sane(bytes(data[: len(data) - cut]))
