use crate::span::{Kind, Peer, PeerKind, Span, Status, bounded_name};

/// What the attributes of a resource or span say that anybody here reads.
#[derive(Clone, Debug, Default)]
pub(super) struct Attributes {
    pub(super) service: Option<String>,
    pub(super) instance: Option<String>,
    pub(super) generation: Option<String>,
    pub(super) error: bool,
    pub(super) kind: Option<Kind>,
    peer_service: Option<String>,
    store: Option<String>,
    store_name: Option<String>,
    queue: Option<String>,
    address: Option<String>,
    port: Option<String>,
}

impl Attributes {
    /// Takes one attribute; its value as text. The current names win over the ones they replaced.
    pub(super) fn take(&mut self, key: &str, value: &str) {
        let text = || Some(bounded_name(value)).filter(|text| !text.is_empty());
        match key {
            "service.name" => self.service = text(),
            "service.instance.id" => self.instance = text(),
            "hostname" | "host.name" => self.instance = self.instance.take().or_else(text),
            "service.version" => self.generation = text(),
            "peer.service" => self.peer_service = text(),
            "db.system" | "db.system.name" => self.store = text(),
            "db.name" | "db.namespace" => self.store_name = text(),
            "messaging.destination.name" => self.queue = text(),
            "messaging.destination" => self.queue = self.queue.take().or_else(text),
            "server.address" => self.address = text(),
            "net.peer.name" => self.address = self.address.take().or_else(text),
            "server.port" => self.port = text(),
            "net.peer.port" => self.port = self.port.take().or_else(text),
            "error" => self.error = value == "true",
            "otel.status_code" => self.error |= value == "ERROR",
            "span.kind" => self.kind = kind_of(value),
            _ => {}
        }
    }

    /// Writes what a span's own attributes say into it.
    pub(super) fn apply(self, span: &mut Span) {
        if self.error {
            span.status = Status::Error;
        }
        if let Some(kind) = self.kind {
            span.kind = kind;
        }
        if span.leaves() {
            span.peer = self.peer();
        }
    }

    fn peer(self) -> Option<Peer> {
        let peer = |kind, name: String| Peer { kind, name: bounded_name(&name) };
        if let Some(name) = self.peer_service {
            return Some(peer(PeerKind::Service, name));
        }
        if let Some(name) = self.queue {
            return Some(peer(PeerKind::Queue, name));
        }
        if let Some(system) = self.store {
            let place = self.store_name.or(self.address);
            return Some(peer(PeerKind::Store, place.map_or(system.clone(), |place| format!("{system}:{place}"))));
        }
        let address = self.address?;
        Some(peer(PeerKind::Address, self.port.map_or(address.clone(), |port| format!("{address}:{port}"))))
    }
}

/// The kind that a word names.
pub(super) fn kind_of(word: &str) -> Option<Kind> {
    match word {
        "internal" => Some(Kind::Internal),
        "server" => Some(Kind::Server),
        "client" => Some(Kind::Client),
        "producer" => Some(Kind::Producer),
        "consumer" => Some(Kind::Consumer),
        _ => None,
    }
}

/// The kind of an OTLP number.
pub(super) fn kind_number(number: u64) -> Kind {
    match number {
        1 => Kind::Internal,
        2 => Kind::Server,
        3 => Kind::Client,
        4 => Kind::Producer,
        5 => Kind::Consumer,
        _ => Kind::Unknown,
    }
}

/// The status of an OTLP number.
pub(super) fn status_number(number: u64) -> Status {
    match number {
        1 => Status::Ok,
        2 => Status::Error,
        _ => Status::Unset,
    }
}
