//! The normal form of a span: what every importer produces and the graph, the model and the observers read.

/// What a span says it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Work inside a service.
    Internal,
    /// An answered request.
    Server,
    /// An outgoing call, as its caller saw it.
    Client,
    /// A message handed to a queue.
    Producer,
    /// A message taken from a queue.
    Consumer,
    /// The source does not say.
    #[default]
    Unknown,
}

/// How the work ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Well.
    Ok,
    /// In an error.
    Error,
    /// The source does not say; counted as ok.
    #[default]
    Unset,
}

/// What kind of thing an outgoing call goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerKind {
    /// A service, by name.
    Service,
    /// A database, cache or lock service.
    Store,
    /// A queue or topic.
    Queue,
    /// A network address and nothing better.
    Address,
}

/// The other end of an outgoing call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    /// What it is.
    pub kind: PeerKind,
    /// Its name.
    pub name: String,
}

/// A span of another trace, or of this one, that caused this span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link {
    /// Trace of the cause.
    pub trace: u128,
    /// Span of the cause.
    pub id: u64,
}

/// One span. Times are microseconds since the Unix epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Trace it belongs to.
    pub trace: u128,
    /// Its id, unique in the trace.
    pub id: u64,
    /// The span that caused it, in the same trace.
    pub parent: Option<u64>,
    /// Further causes; at most [`LINKS_MAX`].
    pub links: Vec<Link>,
    /// Service that emitted it.
    pub service: String,
    /// Its name as emitted; [`operation_name`] folds it.
    pub name: String,
    /// Instance of the service.
    pub instance: Option<String>,
    /// Generation of the service: its version or workload revision.
    pub generation: Option<String>,
    /// What it says it is.
    pub kind: Kind,
    /// Where an outgoing call went.
    pub peer: Option<Peer>,
    /// Start.
    pub start_us: u64,
    /// How long it took.
    pub duration_us: u64,
    /// How it ended.
    pub status: Status,
    /// The intake that authenticated it adds edges and trials; any other adds edges only.
    pub authenticated: bool,
}

/// Links kept of one span.
pub const LINKS_MAX: usize = 8;
/// Bytes kept of a service, operation, instance or peer name.
pub const SPAN_NAME_BYTES_MAX: usize = 256;

impl Span {
    /// End, saturating.
    #[must_use]
    pub fn end_us(&self) -> u64 {
        self.start_us.saturating_add(self.duration_us)
    }

    /// Whether it ended in an error.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.status == Status::Error
    }

    /// Whether its kind alone says that it enters its service.
    #[must_use]
    pub fn enters(&self) -> bool {
        matches!(self.kind, Kind::Server | Kind::Consumer)
    }

    /// Whether its kind says that it leaves its service.
    #[must_use]
    pub fn leaves(&self) -> bool {
        matches!(self.kind, Kind::Client | Kind::Producer)
    }
}

/// The operation of a span name: path segments that are numbers, UUIDs or at least eight hex digits
/// become `{}`, and the query is cut. Folding only adds dependencies.
#[must_use]
pub fn operation_name(name: &str) -> String {
    let name = name.split('?').next().unwrap_or(name);
    let segments: Vec<&str> = name.split('/').map(|part| if is_identifier(part) { "{}" } else { part }).collect();
    bounded_name(&segments.join("/"))
}

/// As [`operation_name`], without a copy of a name that is its own operation.
pub(crate) fn operation_of(name: &str) -> std::borrow::Cow<'_, str> {
    // An identifier has a digit, or is a UUID of letters alone, which is long and has dashes; a query has its mark.
    let plain = |byte: u8| !byte.is_ascii_digit() && byte != b'?' && (byte != b'-' || name.len() < 36);
    if name.len() <= SPAN_NAME_BYTES_MAX && name.bytes().all(plain) {
        std::borrow::Cow::Borrowed(name)
    } else {
        std::borrow::Cow::Owned(operation_name(name))
    }
}

/// The name, or its beginning and a digest of the whole when it is longer than [`SPAN_NAME_BYTES_MAX`].
#[must_use]
pub fn bounded_name(name: &str) -> String {
    if name.len() <= SPAN_NAME_BYTES_MAX {
        return name.to_owned();
    }
    let room = SPAN_NAME_BYTES_MAX - 17;
    let cut = (0..=room).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
    let digest = base::Digest::of(name.as_bytes()).to_string();
    format!("{}~{}", name.get(..cut).unwrap_or(""), digest.get(..16).unwrap_or(""))
}

/// The part of a span's name that is kept: all of it, or the operation of one that is longer than
/// [`SPAN_NAME_BYTES_MAX`].
#[must_use]
pub fn kept_name(name: String) -> String {
    if name.len() <= SPAN_NAME_BYTES_MAX { name } else { operation_name(&name) }
}

fn is_identifier(part: &str) -> bool {
    let hex = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let groups: Vec<&str> = part.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    let uuid = lengths == [8, 4, 4, 4, 12] && groups.iter().all(|group| hex(group));
    // A word such as `deadbeef` or `facade` is hex too: without a digit it is a name.
    let long_hex = part.len() >= 8 && hex(part) && part.bytes().any(|byte| byte.is_ascii_digit());
    number || uuid || long_hex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operation_names_lose_identifiers_and_queries() {
        for (name, operation) in [
            ("GET /cart/42/items?x=1", "GET /cart/{}/items"),
            ("/u/7f9c24e8a1b2/x", "/u/{}/x"),
            ("/u/123e4567-e89b-12d3-a456-426614174000", "/u/{}"),
            ("/facade/deadbeef", "/facade/deadbeef"),
            ("Charge", "Charge"),
        ] {
            assert_eq!(operation_name(name), operation);
        }
    }

    #[test]
    fn an_operation_without_a_copy_is_the_same_operation() {
        let uuid = "abcdefab-abcd-abcd-abcd-abcdefabcdef";
        for name in ["GET /cart/42", "/a?b", "Charge", "/facade-a/b-c", uuid, &"x".repeat(300), "", "é/é"] {
            assert_eq!(operation_of(name), operation_name(name), "{name}");
        }
    }

    #[test]
    fn long_names_are_cut_and_stay_different() {
        let (a, b) = (format!("{}a", "é".repeat(300)), format!("{}b", "é".repeat(300)));
        assert!(operation_name(&a).len() <= SPAN_NAME_BYTES_MAX);
        assert_ne!(operation_name(&a), operation_name(&b));
        let (fits, over) = ("x".repeat(SPAN_NAME_BYTES_MAX), "x".repeat(SPAN_NAME_BYTES_MAX + 1));
        assert_eq!((bounded_name(&fits), kept_name(fits.clone())), (fits.clone(), fits));
        assert_eq!((bounded_name(&over).len(), kept_name(over).len()), (SPAN_NAME_BYTES_MAX, SPAN_NAME_BYTES_MAX));
    }

    #[test]
    fn a_kept_name_has_the_operation_of_the_whole() {
        for name in ["GET /cart/42?x=1".to_owned(), format!("GET /{}/42/items?x={}", "é".repeat(300), "y".repeat(300))]
        {
            assert_eq!(operation_name(&kept_name(name.clone())), operation_name(&name));
        }
    }
}
