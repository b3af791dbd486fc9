//! Files that lie, call, or grow: refused with words, and nothing is allocated for what they claim.

use crate::{archive, fixture, parse, refuses, safetensors};

const BINGET_0: &[u8] = b"h\0";

/// A zip of torch.save with this pickle and one storage of eight zero bytes.
fn zip_of(pickle: &[u8]) -> Vec<u8> {
    archive(&[("m/data.pkl", pickle), ("m/byteorder", b"little"), ("m/data/0", &[0; 8])])
}

/// A legacy file whose object is this pickle.
fn legacy_of(pickle: &[u8]) -> Vec<u8> {
    let whole = fixture("state_legacy.pth");
    // Magic number, version and machine are the same in every file; they end where the dict of sizes is closed.
    let head = whole.windows(2).enumerate().filter(|(_, pair)| pair == b"u.").map(|(at, _)| at + 2).next().unwrap();
    [&whole[..head], pickle, b"\x80\x02]X\x01\0\0\x000a.", &2u64.to_le_bytes(), &[0; 8]].concat()
}

/// A pickle of `{"w": tensor}`, with these pickled arguments: offset, shape and strides.
fn tensor_pickle(class: &str, arguments: &[u8]) -> Vec<u8> {
    let storage = [
        b"(X\x07\0\0\0storage" as &[u8],
        format!("ctorch\n{class}\n").as_bytes(),
        b"X\x01\0\0\x000X\x03\0\0\0cpuK\x02tQ",
    ]
    .concat();
    let call = [b"ctorch._utils\n_rebuild_tensor_v2\n(" as &[u8], &storage, arguments, b"\x89}tR"].concat();
    [b"\x80\x02}X\x01\0\0\0w" as &[u8], &call, b"s."].concat()
}

#[test]
fn the_helpers_make_files_that_are_read() {
    let pickle = tensor_pickle("FloatStorage", b"K\0K\x02\x85K\x01\x85");
    for bytes in [zip_of(&pickle), legacy_of(&pickle)] {
        assert_eq!(parse(&bytes).unwrap().tensors["w"].to_vec1::<f32>().unwrap(), [0.0, 0.0]);
    }
}

#[test]
fn pickles_that_name_programs_are_refused_by_that_name() {
    // Python's name for os.system is that of the module it comes from.
    refuses(&fixture("hostile_zip.pth"), "data.pkl: it names the global posix.system at byte ");
    refuses(&fixture("hostile_legacy.pth"), "the object: it names the global posix.system at byte ");
    let cases: [(&[u8], &str); 6] = [
        (b"\x80\x02cos\nsystem\nX\x02\0\0\0id\x85R.", "it names the global os.system at byte 2"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "it names the global os.system at byte 14"),
        (b"\x80\x02}cbuiltins\neval\ns.", "it names the global builtins.eval at byte 3"),
        (b"\x80\x02ctorch\nload\n.", "it names the global torch.load at byte 2"),
        (b"\x80\x02c\x1b[31m\nx\n.", "the global \\u{1b}[31m.x at byte 2"),
        (b"\x80\x02(X\x02\0\0\0idios\nsystem\n.", "pickle instruction 0x69"),
    ];
    for (pickle, words) in cases {
        refuses(&zip_of(pickle), words);
        refuses(&legacy_of(pickle), words);
    }
}

#[test]
fn pickles_that_claim_too_much_are_refused() {
    let nested = [b"\x80\x02" as &[u8], &b"]".repeat(300_000), &b"a".repeat(299_999), b"."].concat();
    let marks = [b"\x80\x02" as &[u8], &b"(".repeat(1_100_000), b"."].concat();
    let memo = [b"\x80\x02]q\0" as &[u8], &BINGET_0.repeat(1_100_000), b"."].concat();
    let values = [b"\x80\x02" as &[u8], &b"N".repeat(1_100_000), b"."].concat();
    let doubled = [b"\x80\x02]q\0" as &[u8], &[BINGET_0, BINGET_0, b"\x86q\0"].concat().repeat(100), b"."].concat();
    let itself = b"\x80\x02}q\0X\x0a\0\0\0state_dicth\0s.";
    let cases: [(&[u8], &str); 13] = [
        (b"\x80\x02X\xff\xff\xff\xffabc.", "truncated at byte 2"),
        (b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc.", "truncated at byte 2"),
        (b"\x80\x02\x8b\xff\xff\xff\x7fabc.", "truncated at byte 2"),
        (b"\x80\x02\x8b\xff\xff\xff\xff.", "truncated at byte 2"),
        (&nested, "no state dict"),
        (&marks, "too many values"),
        (&memo, "too many values"),
        (&values, "too many values"),
        (&doubled, "no state dict"),
        (itself, "nested too deep"),
        (b"\x80\x02}.", "no tensors"),
        (b"\x80\x02.", "an empty stack at byte 2"),
        (b"(dp0\n.", "not a pickle of protocol 2 to 5"),
    ];
    for (pickle, words) in cases {
        refuses(&zip_of(pickle), words);
    }
}

#[test]
fn tensors_that_reach_too_far_are_refused() {
    let cases: [(&str, &[u8], &str); 9] = [
        ("FloatStorage", b"K\0K\x03\x85K\x01\x85", "reaches past the 8 bytes"),
        ("FloatStorage", b"K\x01K\x02\x85K\x01\x85", "reaches past the 8 bytes"),
        ("DoubleStorage", b"K\0K\x02\x85K\x01\x85", "reaches past the 8 bytes"),
        // A stride of zero makes a billion numbers of one.
        ("FloatStorage", b"K\0J\0\0\0\x40\x85K\0\x85", "more numbers than the file can hold"),
        ("FloatStorage", b"K\0J\xff\xff\xff\xff\x85K\x01\x85", "a size of -1"),
        (
            "FloatStorage",
            b"K\0\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x86K\x01K\x01\x86",
            "overflows",
        ),
        ("FloatStorage", b"K\0K\x02\x85)", "1 axes and 0 strides"),
        ("ComplexFloatStorage", b"K\0K\x01\x85K\x01\x85", "torch.ComplexFloatStorage are not read"),
        ("FloatStorage", b"K\0(K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01tK\x01\x85", "9 axes"),
    ];
    for (class, arguments, words) in cases {
        let pickle = tensor_pickle(class, arguments);
        refuses(&zip_of(&pickle), words);
        refuses(&zip_of(&pickle), "\"w\"");
    }
}

#[test]
fn archives_that_are_no_weights_are_refused() {
    let good = tensor_pickle("FloatStorage", b"K\0K\x02\x85K\x01\x85");
    let good = good.as_slice();
    let cases = [
        (archive(&[("readme.txt", b"x")]), "without data.pkl"),
        (archive(&[("a/data.pkl", good), ("b/data.pkl", good)]), "more than one data.pkl"),
        (archive(&[("m/data.pkl", good), ("m/constants.pkl", b"")]), "TorchScript"),
        (archive(&[("m/data.pkl", good)]), "data/0 in the archive"),
        (archive(&[("m/data.pkl", good), ("m/byteorder", b"big"), ("m/data/0", &[0; 8])]), "big-endian"),
        (zip_of(good)[..200].to_vec(), "damaged zip archive"),
    ];
    for (bytes, words) in cases {
        refuses(&bytes, words);
    }
    let mut flipped = zip_of(good);
    let at = flipped.windows(8).rposition(|bytes| bytes == [0; 8]).unwrap();
    let storage = flipped.windows(10).position(|bytes| bytes.starts_with(b"m/data/0")).unwrap() + 8;
    assert!(at >= storage);
    flipped[storage] = 1;
    refuses(&flipped, "checksum");
}

/// The compressed forms are not even linked in, so that a bomb has nothing to go off in.
#[test]
fn a_zip_bomb_is_not_unpacked() {
    let mut bytes = zip_of(b"\x80\x02}.");
    // The method of compression lies 8 bytes into a local header, and 10 into the directory's entry.
    let places: Vec<usize> = (0..bytes.len() - 4)
        .filter_map(|at| match &bytes[at..at + 4] {
            b"PK\x03\x04" => Some(at + 8),
            b"PK\x01\x02" => Some(at + 10),
            _ => None,
        })
        .collect();
    places.into_iter().for_each(|place| bytes[place] = 8);
    refuses(&bytes, "in the archive");
}

#[test]
fn hostile_safetensors_headers_are_refused() {
    let one = |shape: &str, offsets: &str| {
        safetensors(&format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#), &[0; 8])
    };
    let two = |a: &str, b: &str| {
        let entry =
            |name: &str, offsets: &str| format!(r#""{name}":{{"dtype":"F32","shape":[1],"data_offsets":{offsets}}}"#);
        safetensors(&format!("{{{},{}}}", entry("a", a), entry("b", b)), &[0; 8])
    };
    let twice = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let metadata_twice =
        r#"{"__metadata__":{"taper":"x","taper":"y"},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let axes = format!(r#"{{"a":{{"dtype":"F32","shape":[{}1],"data_offsets":[0,4]}}}}"#, "1,".repeat(100));
    let float8 = r#"{"a":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]}}"#;
    let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let cases = [
        ([&[0xffu8; 7] as &[u8], b"\x00{}"].concat(), "more than 100 MB"),
        ([&1000u64.to_le_bytes() as &[u8], b"{}"].concat(), "longer than the file"),
        (safetensors("{nonsense", &[]), "cannot be understood"),
        (safetensors("{\u{0}", &[]), "cannot be understood"),
        (safetensors(&deep, &[]), "cannot be understood"),
        (safetensors("{}", &[]), "no tensors"),
        (one("[2]", "[0,4]"), "shape and type do not give its length"),
        (one("[3]", "[0,12]"), "truncated, or longer"),
        (one("[1]", "[0,4]"), "truncated, or longer"),
        (one("[1]", "[4,8]"), "\"a\" overlaps another, or leaves a gap"),
        (one("[2]", "[8,0]"), "\"a\" overlaps another, or leaves a gap"),
        (one("[4611686018427387904, 4]", "[0,8]"), "shape overflows"),
        (one("[-1]", "[0,8]"), "cannot be understood"),
        (two("[0,4]", "[0,4]"), "overlaps another"),
        (two("[0,4]", "[2,6]"), "overlaps another"),
        (safetensors(twice, &[0; 4]), "the name \"a\" twice"),
        (safetensors(metadata_twice, &[0; 4]), "the name \"taper\" twice"),
        (safetensors(&axes, &[0; 4]), "101 axes"),
        (safetensors(float8, &[0; 4]), "F8_E4M3 are not read"),
    ];
    for (bytes, words) in cases {
        refuses(&bytes, words);
    }
}

#[test]
fn values_that_are_no_numbers_are_named() {
    let header = r#"{"bad":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"big":{"dtype":"F64","shape":[1],"data_offsets":[4,12]},"good":{"dtype":"F32","shape":[1],"data_offsets":[12,16]}}"#;
    // The second fits f64 alone.
    let data = [&f32::NAN.to_le_bytes() as &[u8], &1e300f64.to_le_bytes(), &1f32.to_le_bytes()].concat();
    refuses(&safetensors(header, &data), "NaN or infinite values in 2 tensors: bad, big");
}

#[test]
fn things_in_place_of_weights_are_recognised() {
    let tar = [&[b'x'; 257] as &[u8], b"ustar\0", &[0; 300]].concat();
    let cases: [(&[u8], &str); 6] = [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"hello", "not a safetensors file, nor one of torch.save"),
        (&tar, "tar archive"),
        (b"\x80\x02K\x01.", "not one of torch.save"),
    ];
    for (bytes, words) in cases {
        refuses(bytes, words);
    }
}
