//! Where messages go.

use crate::limits::ADDRESS_BYTES_MAX;

/// A routable address of a worker or listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An HTTP endpoint that takes each message as a POST.
    Http(String),
    /// Workers that hold an event stream open.
    Poll {
        /// Whom in the group.
        cast: Cast,
        /// The group.
        group: String,
        /// The preferred (any) or only (uni) connection.
        id: Option<String>,
    },
    /// A cloud topic.
    Topic {
        /// The project.
        project: String,
        /// The topic.
        topic: String,
    },
    /// A local command.
    Command(String),
}

/// Whom a poll address means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cast {
    /// The named connection if it is there, else any of the group.
    Any,
    /// Exactly the named connection.
    Uni,
}

impl Address {
    /// Reads an address; `None` if nothing could be routed there.
    #[must_use]
    pub fn parse(text: &str) -> Option<Address> {
        if text.len() > ADDRESS_BYTES_MAX || text.chars().any(|c| c.is_control() || c == ' ') {
            return None;
        }
        let (scheme, rest) = text.split_once("://")?;
        match scheme {
            "http" | "https" => {
                let host = rest.split(['/', '?', '#']).next().unwrap_or("");
                (!host.is_empty() && !host.starts_with(':')).then(|| Address::Http(text.to_owned()))
            }
            "poll" => parse_poll(rest),
            "gcps" => {
                let (project, topic) = rest.split_once('/')?;
                let whole = !project.is_empty() && !topic.is_empty();
                whole.then(|| Address::Topic { project: project.to_owned(), topic: topic.to_owned() })
            }
            "bash" => Some(Address::Command(rest.to_owned())),
            _ => None,
        }
    }
}

fn parse_poll(rest: &str) -> Option<Address> {
    let (user, place) = rest.split_once('@')?;
    let cast = match user {
        "any" => Cast::Any,
        "uni" => Cast::Uni,
        _ => return None,
    };
    let (group, id) = match place.split_once('/') {
        Some((group, id)) => (group, (!id.is_empty()).then(|| id.to_owned())),
        None => (place, None),
    };
    (!group.is_empty()).then(|| Address::Poll { cast, group: group.to_owned(), id })
}
