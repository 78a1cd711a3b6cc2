//! Tags: how they are kept, which of them the machine reads, and what they say about a promise.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::is_reserved;
use crate::state::Promise;

/// Tag: the address that gets the task; a promise has a task exactly when it has this tag.
pub const TARGET: &str = "resonate:target";
/// Tag: `"true"` makes the deadline resolve instead of reject.
pub const TIMER: &str = "resonate:timer";
/// Tag: the instant before which the task is not offered.
pub const DELAY: &str = "resonate:delay";
/// Tag: the root of the call tree.
pub const ORIGIN: &str = "resonate:origin";
/// Tag: the nearest ancestor or self with a target; groups preload.
pub const BRANCH: &str = "resonate:branch";
/// Tag: the direct parent.
pub const PARENT: &str = "resonate:parent";
/// Tag: `"true"` if someone outside the tree settles it.
pub const EXTERNAL: &str = "resonate:external";
/// Tag: `"global"` or `"local"`.
pub const SCOPE: &str = "resonate:scope";
/// Tag: the schedule that created it; set by the server.
pub const SCHEDULE: &str = "resonate:schedule";
/// Tag: dropped by current clients, still checked.
pub const PREFIX: &str = "resonate:prefix";

/// Names that nearly every promise carries; a tag is kept with the place of its name here. Only memory
/// knows these places.
const KNOWN: [&str; 10] = [TARGET, TIMER, DELAY, ORIGIN, BRANCH, PARENT, EXTERNAL, SCOPE, SCHEDULE, PREFIX];
/// The first byte of a tag whose name is none of those.
const OTHER: u8 = u8::MAX;

/// The tags of a promise, by name; cheap to clone and, for what millions of promises carry, small.
///
/// One run of bytes: per tag the code of its name or the name itself, and the value, each with its length before it.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Tags(Option<Arc<[u8]>>);

impl Tags {
    /// The value of a tag.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Names and values, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut rest = self.0.as_deref().unwrap_or_default();
        std::iter::from_fn(move || {
            let (code, after) = rest.split_first()?;
            rest = after;
            let name = if *code == OTHER { text(&mut rest)? } else { KNOWN.get(usize::from(*code))? };
            Some((name, text(&mut rest)?))
        })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// As a map.
    #[must_use]
    pub fn to_map(&self) -> BTreeMap<String, String> {
        self.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}

/// Takes a text with its length before it off the front.
fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (text, after) = after.split_at_checked(length)?;
    *rest = after;
    std::str::from_utf8(text).ok()
}

fn put(bytes: &mut Vec<u8>, text: &str) {
    // INVARIANT: a request with a text of 4 GiB is far beyond every limit.
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
}

impl From<&BTreeMap<String, String>> for Tags {
    fn from(map: &BTreeMap<String, String>) -> Tags {
        let mut bytes = Vec::new();
        for (name, value) in map {
            match KNOWN.iter().position(|known| known == name).and_then(|code| u8::try_from(code).ok()) {
                Some(code) => bytes.push(code),
                None => {
                    bytes.push(OTHER);
                    put(&mut bytes, name);
                }
            }
            put(&mut bytes, value);
        }
        Tags((!bytes.is_empty()).then(|| Arc::from(bytes)))
    }
}

impl From<BTreeMap<String, String>> for Tags {
    fn from(map: BTreeMap<String, String>) -> Tags {
        Tags::from(&map)
    }
}

impl fmt::Debug for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Serialize for Tags {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Tags {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Tags, D::Error> {
        BTreeMap::deserialize(deserializer).map(|map: BTreeMap<String, String>| Tags::from(&map))
    }
}

impl Promise {
    /// One of its tags.
    #[must_use]
    pub fn tag(&self, name: &str) -> Option<&str> {
        self.tags.get(name)
    }

    /// The address its task is offered to.
    #[must_use]
    pub fn target(&self) -> Option<&str> {
        self.tag(TARGET)
    }

    /// Whether its deadline resolves it.
    #[must_use]
    pub fn is_timer(&self) -> bool {
        self.tag(TIMER) == Some("true")
    }

    /// Whether its task is ever offered. A timer's is not: it waits for its deadline.
    #[must_use]
    pub fn is_dispatchable(&self) -> bool {
        self.target().is_some() && !self.is_timer()
    }

    /// Whether others may await it: it is settled from outside the worker that created it.
    #[must_use]
    pub fn is_awaitable(&self) -> bool {
        self.target().is_some()
            || self.is_timer()
            || self.tag(EXTERNAL) == Some("true")
            || self.tag(SCOPE) == Some("global")
            // WHY: only the server settles a reserved promise, so it is external whatever its tags say.
            || is_reserved(&self.id)
    }

    /// The instant before which its task is not offered, if that is still ahead.
    #[must_use]
    pub fn delayed_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.tag(DELAY).and_then(parse_delay).filter(|delay| now < *delay)
    }
}

/// Reads a delay: a non-negative decimal instant in milliseconds.
pub(crate) fn parse_delay(text: &str) -> Option<Timestamp> {
    let digits_only = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits_only { text.parse().ok().map(Timestamp) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name() -> impl Strategy<Value = String> {
        prop_oneof![proptest::sample::select(&KNOWN[..]).prop_map(str::to_owned), ".{0,9}"]
    }

    proptest! {
        #[test]
        fn tags_are_a_map(map in proptest::collection::btree_map(name(), ".{0,300}", 0..12)) {
            let tags = Tags::from(&map);
            prop_assert_eq!(&tags.to_map(), &map);
            prop_assert_eq!((tags.len(), tags.is_empty()), (map.len(), map.is_empty()));
            for (name, value) in &map {
                prop_assert_eq!(tags.get(name), Some(value.as_str()));
            }
            prop_assert_eq!(tags.get("resonate:none"), None);
            let json = serde_json::to_string(&tags).unwrap();
            prop_assert_eq!(&json, &serde_json::to_string(&map).unwrap());
            prop_assert_eq!(serde_json::from_str::<Tags>(&json).unwrap(), tags);
        }
    }
}
