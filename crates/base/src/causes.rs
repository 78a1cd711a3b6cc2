/// An error with its causes, in one line: `what failed: why: why that`.
#[must_use]
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Outer {
        #[error("the store failed")]
        Caused(#[source] std::io::Error),
        #[error("nothing more is known")]
        Bare,
    }

    #[test]
    fn every_cause_is_told_once_and_in_order() {
        let inner = std::io::Error::other("the disk is gone");
        assert_eq!(causes(&Outer::Caused(inner)), "the store failed: the disk is gone");
        assert_eq!(causes(&Outer::Bare), "nothing more is known");
    }
}
