//! The four holdouts on real traces: no bound that was claimed is broken, and no decision with full permission misses.
#![expect(clippy::unwrap_used, reason = "a sample that cannot be read is a failed test")]

use recovery::graph::Config;
use recovery::holdout::{Covered, Evaluated, Holdout, Recording, evaluate};
use recovery::import::{Options, spans};
use recovery::span::Span;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

fn nezha(stem: &Path) -> Vec<Span> {
    let beside = |ending: &str| PathBuf::from(format!("{}{ending}", stem.display()));
    let dictionary = std::fs::read(beside(".dict.json")).unwrap();
    let mut bytes = Vec::new();
    let file = std::fs::File::open(beside(".spans.csv.gz")).unwrap();
    flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
    spans(&bytes, &Options { authenticated: true, dictionary: Some(&dictionary) }).unwrap().0
}

fn evaluated(spans: &[Span], fault_free: Option<&[Span]>, holdout: Holdout) -> Evaluated {
    let recording = Recording { spans, fault_free, topology: None };
    let found = evaluate(&Config::default(), &recording, holdout).unwrap();
    let shown = serde_json::to_string(&found).unwrap();
    let _ = writeln!(std::io::stderr(), "{holdout}: {shown}");
    assert_ne!(found.total.covered, Covered::False, "{holdout}: {shown}");
    // At most half a percent.
    assert!(found.total.decision_fn.k * 200 <= found.total.decision_fn.n, "{holdout}: {shown}");
    found
}

#[test]
fn large_recordings_when_they_are_there() {
    #[expect(clippy::disallowed_methods, reason = "where the large samples are is known to the person who runs this")]
    let Ok(folder) = std::env::var("STANCH_TRACES") else {
        let line = "skipped: STANCH_TRACES does not name a folder with the large trace samples";
        let _ = writeln!(std::io::stderr(), "{line}");
        return;
    };
    let read = |name: &str| nezha(&Path::new(&folder).join("nezha").join(name));
    let (faults, free) = (read("trainticket-2023-01-29-faults"), read("trainticket-2023-01-29-faultfree"));
    for holdout in [Holdout::Fault, Holdout::Time, Holdout::Sampling, Holdout::Blackout] {
        evaluated(&faults, Some(&free), holdout);
    }
}
