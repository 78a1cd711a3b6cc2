//! Experiments. On the sample shop: what came out is judged from outside the product, by the record of the shop's own
//! client, the services' own logs of their starts, and the truth about what was broken. On a server of the recovery
//! protocol: how fast it is, seen from outside.
//!
//! It acts on nothing but shops and servers that it starts for this, and on the server whose address it is given. Read
//! first: [`faults::run`], [`faults::Truth`], [`faults::judge`], [`bench::run`].

pub mod bench;
pub mod faults;
