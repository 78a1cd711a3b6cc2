//! Where the calls of one trace stand in it. Repair decides a position; it never takes away an edge that a row states.

use std::collections::{BTreeMap, BTreeSet};

/// LIMIT: different rows of one call that are compared.
pub(super) const STATED_MAX: usize = 16;
/// Whoever stands outside of what is traced.
pub(super) const OUTSIDE: &str = "USER";

/// What one row states.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stated {
    pub(super) um: Option<String>,
    pub(super) dm: Option<String>,
    pub(super) kind: String,
    pub(super) interface: Option<String>,
}

/// What became of one call's position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// As stated.
    Kept,
    /// By the rule named.
    Filled(&'static str),
    /// Its caller is not its parent's callee.
    Detached,
    /// Its rows contradict each other, and nothing decides between them.
    Conflict,
    /// Nobody says whom it reached.
    NoCallee,
    /// Its parent is absent, and nothing proves it.
    Orphan,
    /// Below a conflict.
    Below,
}

/// One call after repair.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) stated: Stated,
    pub(super) standing: Standing,
    /// Rows of both sides were merged.
    pub(super) twins: bool,
}

/// One trace after repair.
#[derive(Debug, Default)]
pub(super) struct Repaired {
    pub(super) calls: BTreeMap<String, Call>,
    /// Calls that no row states, with the service that answered them.
    pub(super) holes: BTreeMap<String, String>,
}

impl Standing {
    pub(super) fn word(self) -> &'static str {
        match self {
            Standing::Kept => "kept",
            Standing::Filled(rule) => rule,
            Standing::Detached => "detached",
            Standing::Conflict => "conflict",
            Standing::NoCallee => "no callee",
            Standing::Orphan => "orphan",
            Standing::Below => "below broken",
        }
    }
}

/// The place above; none above the first.
pub(super) fn parent(rpc: &str) -> Option<&str> {
    rpc.rfind('.').and_then(|at| rpc.get(..at))
}

/// Repairs one trace, rule after rule.
pub(super) fn repair(stated: &BTreeMap<String, Vec<Stated>>) -> Repaired {
    let mut work = Work::new(stated);
    work.settle_conflicts();
    work.fill();
    work.stand();
    work.finish()
}

struct Work<'a> {
    /// From the root down.
    order: Vec<&'a str>,
    below: BTreeMap<&'a str, Vec<&'a str>>,
    /// What each call may be, after twins were merged.
    candidates: BTreeMap<&'a str, Vec<Stated>>,
    twins: BTreeSet<&'a str>,
    standing: BTreeMap<&'a str, Standing>,
    holes: BTreeMap<&'a str, Option<String>>,
}

impl<'a> Work<'a> {
    fn new(stated: &'a BTreeMap<String, Vec<Stated>>) -> Work<'a> {
        let mut order: Vec<&str> = stated.keys().map(String::as_str).collect();
        order.sort_by_key(|rpc| (rpc.bytes().filter(|byte| *byte == b'.').count(), *rpc));
        let mut below: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for rpc in &order {
            parent(rpc).into_iter().for_each(|above| below.entry(above).or_default().push(rpc));
        }
        let (mut candidates, mut twins) = (BTreeMap::new(), BTreeSet::new());
        for (rpc, rows) in stated {
            let (merged, some) = merged(rows);
            candidates.insert(rpc.as_str(), merged);
            if some {
                twins.insert(rpc.as_str());
            }
        }
        Work { order, below, candidates, twins, standing: BTreeMap::new(), holes: BTreeMap::new() }
    }

    /// The one thing a call can be.
    fn only(&self, rpc: &str) -> Option<&Stated> {
        match self.candidates.get(rpc).map(Vec::as_slice) {
            Some([one]) => Some(one),
            _ => None,
        }
    }

    fn callee(&self, rpc: &str) -> Option<&String> {
        self.only(rpc)?.dm.as_ref()
    }

    /// R4: of several, those that the parent called; of several such, the one that made all the calls below.
    fn settle_conflicts(&mut self) {
        for rpc in self.order.clone() {
            let Some(all) = self.candidates.get(rpc).filter(|all| all.len() > 1).cloned() else { continue };
            let above = parent(rpc).and_then(|above| self.callee(above));
            let called: Vec<Stated> =
                all.iter().filter(|one| above.is_some() && one.um.as_ref() == above).cloned().collect();
            let mut left = if called.is_empty() { all } else { called };
            if left.len() > 1 {
                let calls = |one: &&Stated| one.dm.as_ref().is_some_and(|dm| self.all_called_by(rpc, dm));
                let made: Vec<Stated> = left.iter().filter(calls).cloned().collect();
                if made.len() == 1 {
                    left = made;
                }
            }
            let settled = left.len() == 1;
            self.standing.insert(rpc, if settled { Standing::Filled("R4 conflict") } else { Standing::Conflict });
            if settled {
                self.candidates.insert(rpc, left);
            }
        }
        for rpc in self.order.clone() {
            let above = parent(rpc).and_then(|above| self.standing.get(above));
            if matches!(above, Some(Standing::Conflict | Standing::Below))
                && self.standing.get(rpc) != Some(&Standing::Conflict)
            {
                self.standing.insert(rpc, Standing::Below);
            }
        }
    }

    /// Whether there are calls below, and each of them names this service and no other as its caller.
    fn all_called_by(&self, rpc: &str, service: &String) -> bool {
        let below = self.below.get(rpc).map(Vec::as_slice).unwrap_or_default();
        let names = |rpc: &&&str| {
            let all = self.candidates.get(**rpc).map(Vec::as_slice).unwrap_or_default();
            all.iter().all(|one| one.um.as_ref() == Some(service))
        };
        !below.is_empty() && below.iter().filter(names).count() == below.len()
    }

    /// R5: a missing caller is the parent's callee; a missing callee is whoever made the calls below.
    fn fill(&mut self) {
        for rpc in self.order.clone() {
            if matches!(self.standing.get(rpc), Some(Standing::Conflict | Standing::Below)) {
                continue;
            }
            let Some(mut one) = self.only(rpc).cloned() else { continue };
            let mut filled = false;
            if one.um.is_none() {
                one.um =
                    parent(rpc).filter(|above| !self.is_broken(above)).and_then(|above| self.callee(above)).cloned();
                filled = one.um.is_some();
            }
            if one.dm.is_none() {
                one.dm = self.caller_below(rpc);
                filled |= one.dm.is_some();
            }
            if filled {
                self.candidates.insert(rpc, vec![one]);
                self.standing.entry(rpc).or_insert(Standing::Filled("R5 fill"));
            }
        }
    }

    fn is_broken(&self, rpc: &str) -> bool {
        matches!(self.standing.get(rpc), Some(Standing::Conflict | Standing::Below))
    }

    /// The one caller that the calls below name.
    fn caller_below(&self, rpc: &str) -> Option<String> {
        let below = self.below.get(rpc).into_iter().flatten();
        let named =
            below.flat_map(|rpc| self.candidates.get(rpc).into_iter().flatten()).filter_map(|one| one.um.clone());
        let named: BTreeSet<String> = named.collect();
        if named.len() == 1 { named.into_iter().next() } else { None }
    }

    /// R6 and R7: what stands under an absent parent, and what does not fit under the one that is there.
    fn stand(&mut self) {
        for rpc in self.order.clone() {
            if self.is_broken(rpc) {
                continue;
            }
            let Some(one) = self.only(rpc).cloned() else { continue };
            let standing = match parent(rpc) {
                _ if one.dm.is_none() => Some(Standing::NoCallee),
                None | Some("0") if parent(rpc).is_none_or(|above| !self.candidates.contains_key(above)) => None,
                Some(above) if !self.candidates.contains_key(above) => match self.hole(above) {
                    Some(service) => {
                        if one.um.is_none() {
                            self.candidates.insert(rpc, vec![Stated { um: Some(service), ..one }]);
                        }
                        Some(Standing::Filled("R6 hole"))
                    }
                    None => Some(Standing::Orphan),
                },
                // Under a call that reached nobody knows whom, nothing has a position.
                Some(above) => {
                    (one.um.is_none() || one.um.as_ref() != self.callee(above)).then_some(Standing::Detached)
                }
                None => None,
            };
            if let Some(standing) = standing {
                self.standing.insert(rpc, standing);
            }
        }
    }

    /// The service that answered an absent call: all calls below name it, and the one above it is known, be it by
    /// this same rule.
    fn hole(&mut self, rpc: &'a str) -> Option<String> {
        // From the highest absent one down, so that each finds the one above it judged.
        let mut absent: Vec<&'a str> = Vec::new();
        let mut at = Some(rpc);
        while let Some(rpc) = at.filter(|rpc| !self.candidates.contains_key(rpc) && !self.holes.contains_key(rpc)) {
            absent.push(rpc);
            at = parent(rpc);
        }
        for rpc in absent.into_iter().rev() {
            let above =
                parent(rpc).filter(|above| !matches!(self.standing.get(above), Some(standing) if standing.is_lost()));
            let known = above.is_some_and(|above| match self.holes.get(above) {
                Some(hole) => hole.is_some(),
                None => self.callee(above).is_some(),
            });
            let found = self.caller_below(rpc).filter(|service| known && service != OUTSIDE);
            self.holes.insert(rpc, found);
        }
        self.holes.get(rpc).cloned().flatten()
    }

    fn finish(self) -> Repaired {
        let mut calls = BTreeMap::new();
        for rpc in &self.order {
            let stated = self.only(rpc).cloned().unwrap_or_default();
            let standing = self.standing.get(rpc).copied().unwrap_or(Standing::Kept);
            calls.insert((*rpc).to_owned(), Call { stated, standing, twins: self.twins.contains(rpc) });
        }
        let holes = self.holes.into_iter().filter_map(|(rpc, service)| Some((rpc.to_owned(), service?)));
        Repaired { calls, holes: holes.collect() }
    }
}

impl Standing {
    /// Whether its position says nothing about what stands below.
    fn is_lost(self) -> bool {
        matches!(
            self,
            Standing::Detached | Standing::Conflict | Standing::NoCallee | Standing::Orphan | Standing::Below
        )
    }
}

/// R3: rows that differ only where one of them says nothing become one; then rows that name the same two become one.
/// Answers whether rows with different names were merged.
fn merged(rows: &[Stated]) -> (Vec<Stated>, bool) {
    let mut left: Vec<Stated> = rows.to_vec();
    let mut twins = false;
    while let Some((first, second, one)) = pair(&left) {
        twins = true;
        left.remove(second);
        if let Some(slot) = left.get_mut(first) {
            *slot = one;
        }
    }
    let mut names: Vec<Stated> = Vec::new();
    for one in left {
        if !names.iter().any(|known| known.um == one.um && known.dm == one.dm) {
            names.push(one);
        }
    }
    (names, twins)
}

fn pair(rows: &[Stated]) -> Option<(usize, usize, Stated)> {
    for (second, other) in rows.iter().enumerate() {
        for (first, one) in rows.iter().enumerate().take(second) {
            if let Some(both) = one.with(other) {
                return Some((first, second, both));
            }
        }
    }
    None
}

impl Stated {
    /// Both in one, unless they contradict each other.
    fn with(&self, other: &Stated) -> Option<Stated> {
        let fits = |one: &Option<String>, other: &Option<String>| one.is_none() || other.is_none() || one == other;
        let agree = self.kind == other.kind && fits(&self.um, &other.um) && fits(&self.dm, &other.dm);
        (agree && fits(&self.interface, &other.interface)).then(|| Stated {
            um: self.um.clone().or_else(|| other.um.clone()),
            dm: self.dm.clone().or_else(|| other.dm.clone()),
            kind: self.kind.clone(),
            interface: self.interface.clone().or_else(|| other.interface.clone()),
        })
    }
}
