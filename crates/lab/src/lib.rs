//! Experiments on the sample shop. What came out is judged from outside the product: by the record of the shop's own
//! client, the services' own logs of their starts, and the truth about what was broken.
//!
//! It acts on nothing but shops that it starts for this. Read first: [`faults::run`], [`faults::Truth`],
//! [`faults::judge`].

pub mod faults;
