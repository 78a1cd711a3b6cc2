//! The fuzz corpus through every decoder, as it lies and mutated; without libFuzzer, so that every run of the tests
//! checks it. `FUZZ_MUTATIONS=100000 cargo test -p stanch-server --test corpus -- --nocapture` mutates more.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![expect(clippy::disallowed_methods, reason = "the environment says how long a test may be")]

#[path = "../../../fuzz/src/decoders.rs"]
#[allow(unreachable_pub, missing_docs, reason = "public to the fuzz targets")]
mod decoders;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use std::path::{Path, PathBuf};

/// Mutated inputs of each decoder in an ordinary run.
const MUTATIONS: u32 = 300;
/// Peak memory of the whole run: a decoder that answers a small input with a large allocation shows here.
const PEAK_KIB: u64 = 1 << 20;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The seeds of one decoder, by name.
fn seeds(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = fuzz().join("corpus").join(name);
    let read = |file: String| (file.clone(), std::fs::read(folder.join(file)).unwrap());
    names_in(&folder).into_iter().map(read).collect()
}

#[test]
fn every_seed_is_answered_and_every_decoder_has_some() {
    let mut names: Vec<&str> = decoders::ALL.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    assert_eq!(names_in(&fuzz().join("corpus")), names, "a folder for every decoder, and no other");
    for (name, decode) in decoders::ALL {
        let target = std::fs::read_to_string(fuzz().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(target.contains(&format!("decoders::{name}(")), "{name}");
        let seeds = seeds(name);
        assert!(seeds.len() >= 3, "{name}");
        for (file, bytes) in seeds {
            println!("{name}/{file}");
            decode(&bytes);
        }
    }
}

/// A change of a valid input.
#[derive(Clone, Debug)]
enum Mutation {
    /// One byte becomes another.
    Byte(Index, u8),
    /// Everything behind a place is gone.
    Cut(Index),
    /// A part is gone.
    Remove(Index, usize),
    /// A part stands twice.
    Repeat(Index, usize),
    /// The next number, text or word becomes this.
    Value(Index, &'static str),
    /// So many of these are put in.
    Nest(Index, &'static str, usize),
}

const VALUES: [&str; 14] = [
    "18446744073709551615",
    "18446744073709551616",
    "-1",
    "-9223372036854775808",
    "1e999",
    "NaN",
    "inf",
    "0.1",
    "null",
    "\"\"",
    "{}",
    "[]",
    "true",
    "\u{0}\u{202e}\u{1f600}",
];
const NESTS: [&str; 8] = ["[", "{\"a\":", "(", "[[", "\"", "x", "\u{e9}", "\n"];

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<Index>;
    let nest = (at(), prop::sample::select(&NESTS[..]), prop::sample::select(&[3_usize, 300, 20_000][..]));
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::Byte(at, byte)),
        at().prop_map(Mutation::Cut),
        (at(), 1_usize..60).prop_map(|(at, length)| Mutation::Remove(at, length)),
        (at(), 1_usize..60).prop_map(|(at, length)| Mutation::Repeat(at, length)),
        (at(), prop::sample::select(&VALUES[..])).prop_map(|(at, value)| Mutation::Value(at, value)),
        nest.prop_map(|(at, what, times)| Mutation::Nest(at, what, times)),
    ]
}

impl Mutation {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let length = bytes.len();
        let part = |start: usize, count: usize| start..(start + count).min(length);
        match self {
            Mutation::Byte(at, byte) => bytes.get_mut(at.index(length.max(1))).into_iter().for_each(|old| *old = *byte),
            Mutation::Cut(at) => bytes.truncate(at.index(length + 1)),
            Mutation::Remove(at, count) => drop(bytes.drain(part(at.index(length + 1), *count))),
            Mutation::Repeat(at, count) => {
                let part = part(at.index(length + 1), *count);
                let copy = bytes[part.clone()].to_vec();
                bytes.splice(part.start..part.start, copy);
            }
            Mutation::Value(at, value) => {
                let word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'"' | b'-' | b'.');
                let from = at.index(length + 1);
                let start = from + bytes[from..].iter().position(word).unwrap_or(0);
                let end = start + bytes[start..].iter().position(|byte| !word(byte)).unwrap_or(length - start);
                bytes.splice(start..end, value.bytes());
            }
            Mutation::Nest(at, what, times) => {
                let start = at.index(length + 1);
                bytes.splice(start..start, what.repeat(*times).into_bytes());
            }
        }
    }
}

#[test]
fn mutated_seeds_and_arbitrary_bytes_are_answered_in_bounded_memory() {
    let cases = std::env::var("FUZZ_MUTATIONS").ok().and_then(|count| count.parse().ok()).unwrap_or(MUTATIONS);
    for (seed, (name, decode)) in (1_u64..).zip(decoders::ALL) {
        let all: Vec<Vec<u8>> = seeds(name).into_iter().map(|(_, bytes)| bytes).collect();
        let input = prop_oneof![
            8 => prop::sample::select(all),
            1 => prop::collection::vec(any::<u8>(), 0..2_000),
        ];
        let config = Config { cases, failure_persistence: None, rng_seed: RngSeed::Fixed(seed), ..Config::default() };
        let strategy = (input, prop::collection::vec(mutation(), 0..6));
        let outcome = TestRunner::new(config).run(&strategy, |(mut bytes, mutations)| {
            mutations.iter().for_each(|mutation| mutation.apply(&mut bytes));
            decode(&bytes);
            Ok(())
        });
        outcome.unwrap_or_else(|failure| panic!("{name}, seed {seed}: {failure}"));
        println!("{name}: {cases} mutated inputs");
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    println!("peak memory: {peak:?} KiB");
    assert!(peak.is_none_or(|peak| peak < PEAK_KIB), "{peak:?} KiB");
}
