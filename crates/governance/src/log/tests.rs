use super::*;
use base::SigningKey;
use ct_merkle::mem_backed_tree::MemoryBackedTree;
use sha2::Sha256;

fn entry(at: u64) -> Vec<u8> {
    format!("entry {at}").into_bytes()
}

fn tree(size: u64) -> Tree {
    Tree::of_leaves((0..size).map(|at| leaf_hash(&entry(at))))
}

#[test]
fn roots_and_proofs_equal_an_independent_implementation() {
    let ours = tree(70);
    let mut theirs = MemoryBackedTree::<Sha256, Vec<u8>>::new();
    for size in 1..=70_u64 {
        theirs.push(entry(size - 1));
        assert_eq!(ours.root_at(size).unwrap().0.as_slice(), theirs.root().as_bytes().as_slice(), "{size}");
        for index in 0..size {
            let proof = theirs.prove_inclusion(usize::try_from(index).unwrap());
            let expected: Vec<u8> = ours.inclusion(index, size).unwrap().iter().flat_map(|hash| hash.0).collect();
            assert_eq!(proof.as_bytes(), expected, "{index} of {size}");
        }
        for old in 1..size {
            let proof = theirs.prove_consistency(usize::try_from(size - old).unwrap());
            let expected: Vec<u8> = ours.consistency(old, size).unwrap().iter().flat_map(|hash| hash.0).collect();
            assert_eq!(proof.as_bytes(), expected, "{old} to {size}");
        }
    }
}

#[test]
fn a_proof_verifies_for_its_entry_index_size_and_root_only() {
    let tree = tree(20);
    for size in 1..=20 {
        let root = tree.root_at(size).unwrap();
        for index in 0..size {
            let proof = tree.inclusion(index, size).unwrap();
            let leaf = leaf_hash(&entry(index));
            assert!(verify_inclusion(&leaf, index, size, &proof, &root));
            assert!(!verify_inclusion(&leaf_hash(b"other"), index, size, &proof, &root));
            assert!(!verify_inclusion(&leaf, index + 1, size, &proof, &root));
            let longer = [proof.clone(), vec![root]].concat();
            assert!(!verify_inclusion(&leaf, index, size, &longer, &root));
            assert!(proof.is_empty() || !verify_inclusion(&leaf, index, size, &proof[1..], &root));
        }
        assert_eq!((tree.inclusion(size, size), tree.inclusion(0, 21)), (None, None));
    }
}

#[test]
fn a_fork_at_any_index_is_inconsistent() {
    let (honest, size) = (tree(20), 20);
    for at in 0..size {
        let forked = Tree::of_leaves((0..size).map(|index| leaf_hash(&entry(if index == at { 99 } else { index }))));
        for old in 1..=size {
            let (root, old_root) = (forked.root(), honest.root_at(old).unwrap());
            let proof = forked.consistency(old, size).unwrap();
            assert_eq!(verify_consistency(old, &old_root, size, &root, &proof), at >= old, "{at} {old}");
        }
    }
    let root = honest.root();
    assert!(!verify_consistency(0, &root, 20, &root, &[]) && !verify_consistency(21, &root, 20, &root, &[]));
    assert!(verify_consistency(20, &root, 20, &root, &[]) && !verify_consistency(20, &root, 20, &root, &[root]));
}

#[test]
fn an_empty_tree_has_the_digest_of_nothing() {
    assert_eq!(Tree::new().root().to_string(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

#[test]
fn a_checkpoint_is_one_text_signed_by_one_key() {
    let key = SigningKey::from_seed(&[3; 32]);
    let checkpoint = Checkpoint { origin: "stanch.log/test".into(), size: 20, root: tree(20).root() };
    let note = checkpoint.sign(&key);
    assert!(note.starts_with("stanch.log/test\n20\n") && note.contains("\n\n\u{2014} stanch.log/test "));
    assert_eq!(Checkpoint::open(&note, &key.public()), Ok(checkpoint.clone()));
    assert_eq!(Checkpoint::open(&note, &SigningKey::from_seed(&[4; 32]).public()), Err(NoteError::Signature));
    for bad in [
        note.replace("20", "020"),
        note.replace("20", "21"),
        format!("{note}\n"),
        note.replace("\n\n", "\n"),
        note.trim_end().to_owned(),
    ] {
        assert!(Checkpoint::open(&bad, &key.public()).is_err(), "{bad}");
    }
}

#[test]
fn a_verifier_key_is_read_in_its_one_form() {
    let key = LogKey { name: "stanch.log/test".into(), key: SigningKey::from_seed(&[3; 32]).public() };
    let text = key.to_string();
    assert_eq!(LogKey::parse(&text), Some(key));
    for bad in [text.replace("test", "tost"), text.replace('+', " "), String::new(), text[1..].to_owned()] {
        assert_eq!(LogKey::parse(&bad), None, "{bad}");
    }
    // The public example of the signed-note format.
    let public = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    assert_eq!(LogKey::parse(public).map(|key| key.to_string()), Some(public.to_owned()));
}

#[test]
fn a_proof_text_is_read_in_its_one_form() {
    let tree = tree(20);
    let note = Checkpoint { origin: "o".into(), size: 20, root: tree.root() }.sign(&SigningKey::from_seed(&[3; 32]));
    let text = proof_text(7, &tree.inclusion(7, 20).unwrap(), &note);
    assert!(text.starts_with("c2sp.org/tlog-proof@v1\nindex 7\n"));
    assert_eq!(read_proof(&text), Some((7, tree.inclusion(7, 20).unwrap(), note.as_str())));
    for bad in [text.replace("index 7", "index 07"), text.replace("@v1", "@v2"), text.replacen('\n', "\r\n", 1)] {
        assert_eq!(read_proof(&bad), None);
    }
}
