use crate::isa::{EdgeName, Place};
use base::canon::{Canon, Error, Value};

base::word_enum! {
    /// The closed vocabulary of conditions; each signal has one comparison.
    pub enum Signal {
        /// Ready instances.
        Ready = 1 "ready",
        /// Requests in flight.
        InFlight = 2 "inflight",
        /// Failed requests, parts per million.
        ErrorPpm = 3 "error_ppm",
        /// 99th percentile of latency, milliseconds.
        P99Ms = 4 "p99_ms",
        /// Requests or messages waiting.
        Queue = 5 "queue",
        /// Attempts beyond the first, per thousand requests.
        RetriesPermille = 6 "retries_permille",
        /// Cache hits per thousand.
        HitPermille = 7 "hit_permille",
        /// Share of new requests in percent.
        Weight = 8 "weight",
        /// Every instance has a newer generation than when the step began.
        Generation = 9 "generation",
        /// Revision number of an object.
        Revision = 10 "revision",
        /// Ready members of a quorum set.
        Quorum = 11 "quorum",
        /// Nothing became worse since the plan was armed.
        NoRegression = 12 "no-regression",
    }
}

/// A versioned object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Object {
    /// workload, config, secret, service, policy, quota, flag, unit, dataset or role.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What a condition speaks about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A place.
    Place(Place),
    /// An edge.
    Edge(EdgeName),
    /// An object.
    Object(Object),
}

/// One condition, for example `ready(payments)>=2`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Predicate {
    /// What is measured.
    pub signal: Signal,
    /// Of what; absent: of the step's own target, or of everything for `no-regression`.
    pub subject: Option<Subject>,
    /// The number it is compared with; 0 for signals that take none.
    pub value: i64,
}

impl Signal {
    /// The comparison this signal is always used with; `None` for signals without a number.
    #[must_use]
    pub fn operator(self) -> Option<&'static str> {
        match self {
            Signal::Ready | Signal::HitPermille | Signal::Quorum => Some(">="),
            Signal::InFlight | Signal::ErrorPpm | Signal::P99Ms | Signal::Queue | Signal::RetriesPermille => Some("<="),
            Signal::Weight | Signal::Revision => Some("="),
            Signal::Generation | Signal::NoRegression => None,
        }
    }
}

impl Predicate {
    /// Whether a measured value satisfies the condition; `None` for signals that are not compared with a number.
    #[must_use]
    pub fn holds(&self, measured: i64) -> Option<bool> {
        match self.signal.operator()? {
            ">=" => Some(measured >= self.value),
            "<=" => Some(measured <= self.value),
            _ => Some(measured == self.value),
        }
    }

    pub(super) fn normalize(&mut self, subject: Option<&Subject>) {
        if let Some(Subject::Place(Place::Instances(_, numbers))) = &mut self.subject {
            numbers.sort_unstable();
            numbers.dedup();
        }
        if self.signal.operator().is_none() {
            self.value = 0;
        }
        if self.signal == Signal::NoRegression {
            self.subject = None;
        } else if self.subject.is_none() {
            self.subject = match subject {
                // WHY: only these two speak about single instances; the others are numbers of a whole service.
                Some(Subject::Place(place)) if !matches!(self.signal, Signal::Weight | Signal::Generation) => {
                    Some(Subject::Place(Place::Service(place.service().to_owned())))
                }
                other => other.cloned(),
            };
        }
    }
}

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.kind, self.namespace, self.name)
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Subject::Place(place) => write!(f, "{place}"),
            Subject::Edge(edge) => write!(f, "{edge}"),
            Subject::Object(object) => write!(f, "{object}"),
        }
    }
}

impl std::fmt::Display for Predicate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.signal)?;
        if let Some(subject) = &self.subject {
            write!(f, "({subject})")?;
        }
        match (self.signal, self.signal.operator()) {
            (Signal::Generation, _) => f.write_str(">saved"),
            (_, Some(operator)) => write!(f, "{operator}{}", self.value),
            (_, None) => Ok(()),
        }
    }
}

impl Canon for Object {
    fn to_value(&self) -> Value {
        vec![self.kind.clone(), self.namespace.clone(), self.name.clone()].to_value()
    }
    fn from_value(value: Value) -> Result<Self, Error> {
        let parts = Vec::<String>::from_value(value)?;
        let [kind, namespace, name] = <[String; 3]>::try_from(parts).map_err(|_| Error::OutOfRange)?;
        Ok(Object { kind, namespace, name })
    }
}

impl Canon for Subject {
    fn to_value(&self) -> Value {
        match self {
            Subject::Place(place) => (0_u64, place.to_value()).to_value(),
            Subject::Edge(edge) => (1_u64, edge.to_value()).to_value(),
            Subject::Object(object) => (2_u64, object.to_value()).to_value(),
        }
    }
    fn from_value(value: Value) -> Result<Self, Error> {
        match <(u64, Value)>::from_value(value)? {
            (0, content) => Place::from_value(content).map(Subject::Place),
            (1, content) => EdgeName::from_value(content).map(Subject::Edge),
            (2, content) => Object::from_value(content).map(Subject::Object),
            _ => Err(Error::OutOfRange),
        }
    }
}

impl Canon for Predicate {
    fn to_value(&self) -> Value {
        let mut fields = vec![(1, self.signal.to_value())];
        fields.extend(self.subject.to_field().map(|value| (2, value)));
        fields.push((3, self.value.to_value()));
        Value::Record(fields)
    }
    fn from_value(value: Value) -> Result<Self, Error> {
        let mut fields = base::canon::Fields::of(value)?;
        let predicate = Predicate { signal: fields.take(1)?, subject: fields.take(2)?, value: fields.take(3)? };
        fields.finish()?;
        Ok(predicate)
    }
}
