//! Words and symbols with their places.

use super::TextError;
use crate::check::Code;
use crate::plan::PLAN_BYTES_MAX;

/// One token: a word (letters, digits, `.`, `_`, `-`) or a symbol.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) text: String,
    pub(super) word: bool,
    pub(super) line: u32,
    pub(super) column: u32,
}

/// Splits the text. The last token is an empty symbol at its end.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, TextError> {
    if text.len() > PLAN_BYTES_MAX {
        let why = format!("a plan has at most {PLAN_BYTES_MAX} bytes");
        return Err(TextError { code: Code::K102, line: 1, column: 1, why });
    }
    let mut out = Vec::new();
    let mut chars = text.chars().peekable();
    let (mut line, mut column) = (1_u32, 1_u32);
    while let Some(first) = chars.next() {
        let (at_line, at_column) = (line, column);
        column += 1;
        if first == '\n' {
            (line, column) = (line + 1, 1);
            continue;
        }
        if first.is_whitespace() {
            continue;
        }
        let mut token = first.to_string();
        let word = is_word(first) && first != '-';
        if word {
            while let Some(next) = chars.peek().copied().filter(|next| is_word(*next)) {
                // A `-` that begins an arrow ends the word.
                let mut ahead = chars.clone();
                ahead.next();
                if next == '-' && ahead.peek() == Some(&'>') {
                    break;
                }
                token.push(next);
                chars.next();
                column += 1;
            }
        } else if let Some(second) = second_of(first, chars.peek().copied()) {
            token.push(second);
            chars.next();
            column += 1;
        }
        let text = match token.as_str() {
            "→" => "->".to_owned(),
            "·" => ";".to_owned(),
            other => other.to_owned(),
        };
        out.push(Token { text, word, line: at_line, column: at_column });
    }
    out.push(Token { text: String::new(), word: false, line, column });
    Ok(out)
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

fn second_of(first: char, next: Option<char>) -> Option<char> {
    match (first, next) {
        ('-', Some('>')) => Some('>'),
        ('>' | '<', Some('=')) => Some('='),
        _ => None,
    }
}
