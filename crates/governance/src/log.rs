//! The evidence log: an RFC 6962 Merkle tree over entries, and signed checkpoints that public tools read.

mod note;

pub use note::{Checkpoint, LogKey, NoteError, proof_text, read_proof};

use base::Digest;

/// Digest of an entry: SHA-256 of a zero byte and the entry.
#[must_use]
pub fn leaf_hash(entry: &[u8]) -> Digest {
    Digest::of_parts(&[&[0], entry])
}

fn node_hash(left: &Digest, right: &Digest) -> Digest {
    Digest::of_parts(&[&[1], &left.0, &right.0])
}

/// The tree, grown at its right end. Complete subtrees are kept, so roots and proofs of any earlier size
/// cost a logarithm.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// `levels[h][i]` is the root of the `i`-th complete subtree of height `h`.
    levels: Vec<Vec<Digest>>,
}

impl Tree {
    /// An empty tree.
    #[must_use]
    pub fn new() -> Tree {
        Tree::default()
    }

    /// The tree over leaf hashes in order.
    #[must_use]
    pub fn of_leaves(leaves: impl IntoIterator<Item = Digest>) -> Tree {
        let mut tree = Tree::new();
        leaves.into_iter().for_each(|leaf| tree.push(leaf));
        tree
    }

    /// Appends a leaf hash.
    pub fn push(&mut self, leaf: Digest) {
        let mut carry = Some(leaf);
        let mut height = 0;
        while let Some(hash) = carry.take() {
            if self.levels.len() == height {
                self.levels.push(Vec::new());
            }
            if let Some(level) = self.levels.get_mut(height) {
                level.push(hash);
                if let (true, [.., left, right]) = (level.len().is_multiple_of(2), level.as_slice()) {
                    carry = Some(node_hash(left, right));
                }
            }
            height += 1;
        }
    }

    /// How many leaves it has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.levels.first().map_or(0, |level| level.len() as u64)
    }

    /// Its root; SHA-256 of nothing when empty.
    #[must_use]
    pub fn root(&self) -> Digest {
        self.root_at(self.size()).unwrap_or_else(|| Digest::of(&[]))
    }

    /// The root it had with `size` leaves.
    #[must_use]
    pub fn root_at(&self, size: u64) -> Option<Digest> {
        if size == 0 { Some(Digest::of(&[])) } else { self.range(0, size) }
    }

    /// Root of the leaves from `start` to `end`, as RFC 6962 splits them.
    fn range(&self, start: u64, end: u64) -> Option<Digest> {
        let count = end.checked_sub(start).filter(|count| *count > 0)?;
        if count.is_power_of_two() && start.is_multiple_of(count) {
            let level = self.levels.get(usize::try_from(count.trailing_zeros()).ok()?)?;
            return level.get(usize::try_from(start / count).ok()?).copied();
        }
        let split = start + split(count);
        Some(node_hash(&self.range(start, split)?, &self.range(split, end)?))
    }

    /// The inclusion proof of leaf `index` in the tree of `size` leaves.
    #[must_use]
    pub fn inclusion(&self, index: u64, size: u64) -> Option<Vec<Digest>> {
        if index >= size || size > self.size() {
            return None;
        }
        let (mut start, mut end, mut proof) = (0, size, Vec::new());
        while end - start > 1 {
            let middle = start + split(end - start);
            if index < middle {
                proof.push(self.range(middle, end)?);
                end = middle;
            } else {
                proof.push(self.range(start, middle)?);
                start = middle;
            }
        }
        proof.reverse();
        Some(proof)
    }

    /// The proof that the tree of `size` leaves extends the tree of `old` leaves.
    #[must_use]
    pub fn consistency(&self, old: u64, size: u64) -> Option<Vec<Digest>> {
        if old == 0 || old > size || size > self.size() {
            return None;
        }
        let (mut start, mut end, mut is_whole, mut proof) = (0, size, true, Vec::new());
        while old != end {
            let middle = start + split(end - start);
            if old <= middle {
                proof.push(self.range(middle, end)?);
                end = middle;
            } else {
                proof.push(self.range(start, middle)?);
                start = middle;
                is_whole = false;
            }
        }
        if !is_whole {
            proof.push(self.range(start, end)?);
        }
        proof.reverse();
        Some(proof)
    }
}

/// The largest power of two smaller than `count`; `count` is at least 2.
fn split(count: u64) -> u64 {
    1 << (u64::BITS - 1 - (count - 1).leading_zeros())
}

/// Whether `proof` shows `leaf` at `index` in the tree of `size` leaves with this root.
#[must_use]
pub fn verify_inclusion(leaf: &Digest, index: u64, size: u64, proof: &[Digest], root: &Digest) -> bool {
    if index >= size {
        return false;
    }
    let (mut node, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if node % 2 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            while node % 2 == 0 && node != 0 {
                node /= 2;
                last /= 2;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node /= 2;
        last /= 2;
    }
    last == 0 && hash == *root
}

/// Whether `proof` shows that the tree of `size` leaves extends the tree of `old` leaves.
#[must_use]
pub fn verify_consistency(old: u64, old_root: &Digest, size: u64, root: &Digest, proof: &[Digest]) -> bool {
    if old == 0 || old > size {
        return false;
    }
    if old == size {
        return proof.is_empty() && old_root == root;
    }
    let (mut node, mut last) = (old - 1, size - 1);
    while node % 2 == 1 {
        node /= 2;
        last /= 2;
    }
    let mut rest = proof.iter();
    // A complete old tree is itself the first node; otherwise the proof begins with it.
    let first = if old.is_power_of_two() { Some(old_root) } else { rest.next() };
    let Some(first) = first else { return false };
    let (mut old_hash, mut hash) = (*first, *first);
    for sibling in rest {
        if last == 0 {
            return false;
        }
        if node % 2 == 1 || node == last {
            old_hash = node_hash(sibling, &old_hash);
            hash = node_hash(sibling, &hash);
            while node % 2 == 0 && node != 0 {
                node /= 2;
                last /= 2;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        node /= 2;
        last /= 2;
    }
    last == 0 && old_hash == *old_root && hash == *root
}

#[cfg(test)]
mod tests;
