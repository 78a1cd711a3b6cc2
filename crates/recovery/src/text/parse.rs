//! A recursive-descent parser, one function per rule of the grammar.

use super::lex::{Token, tokens};
use super::{KEYWORDS, TextError};
use crate::check::Code;
use crate::isa::{
    Action, BreakerMode, DrainMode, EdgeName, Limited, Place, Rate, RestartStrategy, Restored, Revision, ScaleTo,
};
use crate::plan::{
    LIST_MAX, NAME_BYTES_MAX, Object, OnFail, PREDICATES_MAX, Predicate, STEPS_MAX, Signal, Step, Subject,
};

type Parsed<T> = Result<T, TextError>;

pub(super) fn plan(text: &str) -> Parsed<Vec<Step>> {
    let mut parser = Parser::new(text)?;
    let mut steps = vec![parser.node()?];
    while parser.eat(";") {
        if steps.len() == STEPS_MAX {
            return Err(parser.error(Code::K102, format!("a plan has at most {STEPS_MAX} steps")));
        }
        steps.push(parser.node()?);
    }
    parser.end("`;` or the end of the plan")?;
    Ok(steps)
}

pub(super) fn lone_predicate(text: &str) -> Parsed<Predicate> {
    let mut parser = Parser::new(text)?;
    let predicate = parser.predicate()?;
    parser.end("the end of the condition")?;
    Ok(predicate)
}

struct Parser {
    tokens: Vec<Token>,
    next: usize,
    end: Token,
}

impl Parser {
    fn new(text: &str) -> Parsed<Parser> {
        let mut tokens = tokens(text)?;
        let blank = Token { text: String::new(), word: false, line: 1, column: 1 };
        let end = tokens.pop().unwrap_or(blank);
        Ok(Parser { tokens, next: 0, end })
    }

    fn node(&mut self) -> Parsed<Step> {
        let mut key = String::new();
        let labelled = self.peek().word && self.peek_at(1).text == ":";
        if labelled {
            let at = self.peek().clone();
            key = self.word("a step key")?;
            if !crate::plan::is_key(&key) {
                let why = format!("`{key}` is not a step key: a letter, then letters, digits and `-`, no keyword");
                return Err(error_at(&at, Code::K101, why));
            }
            self.expect(":")?;
        }
        let action = self.action()?;
        let pre = if self.eat("if") { self.predicates()? } else { Vec::new() };
        let post = if self.eat("until") { self.predicates()? } else { Vec::new() };
        let on_fail = if self.eat("else") { self.on_fail()? } else { OnFail::Undo };
        Ok(Step { key, action, pre, post, on_fail })
    }

    fn action(&mut self) -> Parsed<Action> {
        let verb = self.peek().clone();
        if !verb.word {
            return Err(self.error(Code::K101, format!("expected a step, found {}", shown(&verb))));
        }
        self.next += 1;
        match verb.text.as_str() {
            "restart" => self.restart(),
            "drain" => self.drain(),
            "restore" => self.restore(),
            "break" => self.breaker(),
            "ratelimit" => self.rate_limit(),
            "scale" => self.scale(),
            "rollback" => self.rollback(),
            "par" => Err(error_at(&verb, Code::K101, "`par` is not supported: write the steps in order".into())),
            other => {
                let why = format!(
                    "`{other}` is not an action; the seven are restart, drain, restore, break, ratelimit, scale, rollback"
                );
                Err(error_at(&verb, Code::K103, why))
            }
        }
    }

    fn restart(&mut self) -> Parsed<Action> {
        let place = self.place()?;
        let strategy = if self.eat("group") { RestartStrategy::Group } else { RestartStrategy::Rolling };
        let wave = if self.eat("wave") { self.number()? } else { 1 };
        let surge = if self.eat("surge") { self.number()? } else { 0 };
        let grace_ms = if self.eat("grace") { Some(self.duration()?) } else { None };
        let jitter_ms = if self.eat("jitter") { Some(self.duration()?) } else { None };
        Ok(Action::Restart { place, strategy, wave, surge, grace_ms, jitter_ms })
    }

    fn drain(&mut self) -> Parsed<Action> {
        let place = self.place()?;
        let percent = if self.peek_at(1).text == "%" { self.percent()? } else { 100 };
        let mode = match self.word("`new` or `all`")?.as_str() {
            "new" => DrainMode::New,
            "all" => DrainMode::All,
            other => return Err(self.before(Code::K104, format!("`{other}`: a drain takes `new` or `all` requests"))),
        };
        let ttl_ms = self.duration()?;
        let timeout_ms = if self.eat("timeout") { Some(self.duration()?) } else { None };
        Ok(Action::Drain { place, percent, mode, timeout_ms, ttl_ms })
    }

    fn restore(&mut self) -> Parsed<Action> {
        let of = self.restored()?;
        let mut ramp = vec![25, 50, 100];
        let mut ramp_ms = None;
        if self.eat("ramp") {
            ramp = vec![self.number()?];
            while self.eat(",") {
                self.bounded(ramp.len())?;
                ramp.push(self.number()?);
            }
            if self.eat("every") {
                ramp_ms = Some(self.duration()?);
            }
        }
        Ok(Action::RestoreTraffic { of, ramp, ramp_ms })
    }

    fn restored(&mut self) -> Parsed<Restored> {
        let first = self.peek();
        if self.peek_at(1).text == "weights" && first.word {
            let service = self.name("a service")?;
            self.expect("weights")?;
            return self.weights(&service);
        }
        if !first.word || KEYWORDS.contains(&first.text.as_str()) {
            return Ok(Restored::AllOpen);
        }
        let mut keys = vec![self.name("a step key")?];
        while self.eat(",") {
            self.bounded(keys.len())?;
            keys.push(self.name("a step key")?);
        }
        Ok(Restored::Steps(keys))
    }

    fn weights(&mut self, service: &str) -> Parsed<Restored> {
        let mut weights = Vec::new();
        loop {
            self.bounded(weights.len())?;
            let place = self.place()?;
            if place.service() != service {
                return Err(self.before(Code::K104, format!("`{place}` is no place of `{service}`")));
            }
            self.expect(":")?;
            weights.push((place, self.number()?));
            if !self.eat(",") {
                return Ok(Restored::Weights(weights));
            }
        }
    }

    fn breaker(&mut self) -> Parsed<Action> {
        let edge = self.edge()?;
        let word = self.word("`open` or `half-open`")?;
        let Some(mode) = BreakerMode::parse(&word) else {
            return Err(self.before(Code::K104, format!("`{word}`: a breaker is `open` or `half-open`")));
        };
        let fallback = if self.eat("fallback") { Some(self.name("a fallback")?) } else { None };
        Ok(Action::CircuitBreak { edge, mode, fallback, ttl_ms: self.duration()? })
    }

    fn rate_limit(&mut self) -> Parsed<Action> {
        let what =
            if self.peek_at(1).text == "->" { Limited::Edge(self.edge()?) } else { Limited::Place(self.place()?) };
        let rate = self.rate()?;
        let burst = if self.eat("burst") { Some(self.number()?) } else { None };
        let priority = if self.eat("priority") { Some(self.name("a priority")?) } else { None };
        Ok(Action::RateLimit { what, rate, burst, priority, ttl_ms: self.duration()? })
    }

    fn rate(&mut self) -> Parsed<Rate> {
        if self.peek_at(1).text == "%" {
            return self.percent().map(Rate::Percent);
        }
        let word = self.word("a rate such as `60%` or `50rps`")?;
        let digits = word.strip_suffix("rps").unwrap_or(&word);
        let rate = self.integer(digits)?;
        if !word.ends_with("rps") && !self.eat("rps") {
            return Err(self.error(Code::K104, "a rate ends in `%` or `rps`".into()));
        }
        Ok(Rate::PerSecond(rate))
    }

    fn scale(&mut self) -> Parsed<Action> {
        let service = self.name("a service")?;
        let sign = self.peek().text.clone();
        self.next += usize::from(matches!(sign.as_str(), "+" | "-" | "="));
        let to = match sign.as_str() {
            "+" => ScaleTo::More(self.number()?),
            "-" => ScaleTo::Fewer(self.number()?),
            "=" => ScaleTo::Exactly(self.number()?),
            _ => return Err(self.error(Code::K104, "a scale is `+n`, `-n` or `=n`".into())),
        };
        Ok(Action::Scale { service, to, ttl_ms: self.duration()? })
    }

    fn rollback(&mut self) -> Parsed<Action> {
        let Object { kind, namespace, name } = self.object()?;
        let to = if self.eat("to") {
            let word = self.word("a revision")?;
            if self.eat("@") {
                Revision::Named(format!("{word}@{}", self.word("an instance")?))
            } else if word == "last-good" {
                Revision::LastGood
            } else {
                Revision::Named(word)
            }
        } else {
            Revision::LastGood
        };
        Ok(Action::RollbackConfig { kind, namespace, name, to })
    }

    fn object(&mut self) -> Parsed<Object> {
        let kind = self.name("an object's kind")?;
        self.expect("/")?;
        let namespace = self.name("a namespace")?;
        self.expect("/")?;
        Ok(Object { kind, namespace, name: self.name("an object's name")? })
    }

    fn place(&mut self) -> Parsed<Place> {
        let service = self.name("a service")?;
        if self.eat("#") {
            return Ok(Place::Shard(service, self.name("a shard")?));
        }
        if !self.eat("@") {
            return Ok(Place::Service(service));
        }
        if self.peek().text == "zone" && self.peek_at(1).text == "=" {
            self.next += 2;
            return Ok(Place::Zone(service, self.name("a zone")?));
        }
        let mut numbers = vec![self.number()?];
        while self.peek().text == "," && is_number(&self.peek_at(1).text) {
            self.bounded(numbers.len())?;
            self.next += 1;
            numbers.push(self.number()?);
        }
        Ok(Place::Instances(service, numbers))
    }

    fn edge(&mut self) -> Parsed<EdgeName> {
        let caller = self.name("a caller")?;
        self.expect("->")?;
        Ok(EdgeName { caller, callee: self.name("a callee")? })
    }

    fn predicates(&mut self) -> Parsed<Vec<Predicate>> {
        let mut list = vec![self.predicate()?];
        while self.eat(",") {
            if list.len() == PREDICATES_MAX {
                return Err(self.error(Code::K102, format!("a step has at most {PREDICATES_MAX} conditions")));
            }
            list.push(self.predicate()?);
        }
        Ok(list)
    }

    fn predicate(&mut self) -> Parsed<Predicate> {
        let word = self.word("a condition")?;
        let Some(signal) = Signal::parse(&word) else {
            return Err(self.before(Code::K106, format!("`{word}` is not a condition")));
        };
        let subject = if self.eat("(") {
            let subject = self.subject()?;
            self.expect(")")?;
            Some(subject)
        } else {
            None
        };
        if signal == Signal::Generation {
            self.operator(">")?;
            self.expect("saved")?;
            return Ok(Predicate { signal, subject, value: 0 });
        }
        let Some(operator) = signal.operator() else { return Ok(Predicate { signal, subject, value: 0 }) };
        self.operator(operator)?;
        let digits = self.word("a number")?;
        let value: u32 = self.integer(&digits)?;
        Ok(Predicate { signal, subject, value: i64::from(value) })
    }

    fn subject(&mut self) -> Parsed<Subject> {
        match self.peek_at(1).text.as_str() {
            "->" => self.edge().map(Subject::Edge),
            "/" => self.object().map(Subject::Object),
            _ => self.place().map(Subject::Place),
        }
    }

    fn operator(&mut self, wanted: &str) -> Parsed<()> {
        if self.eat(wanted) {
            return Ok(());
        }
        Err(self.error(Code::K106, format!("this condition is written with `{wanted}`")))
    }

    fn on_fail(&mut self) -> Parsed<OnFail> {
        match self.word("`undo`, `stop`, `retry` or `undo-to KEY`")?.as_str() {
            "undo" => Ok(OnFail::Undo),
            "stop" => Ok(OnFail::Stop),
            "retry" => Ok(OnFail::Retry),
            "undo-to" => self.name("a step key").map(OnFail::UndoTo),
            other => Err(self.before(Code::K101, format!("`{other}` is not `undo`, `stop`, `retry` or `undo-to`"))),
        }
    }

    fn percent(&mut self) -> Parsed<u32> {
        let number = self.number()?;
        self.expect("%")?;
        Ok(number)
    }

    fn number(&mut self) -> Parsed<u32> {
        let word = self.word("a number")?;
        self.integer(&word)
    }

    fn integer(&self, digits: &str) -> Parsed<u32> {
        let parsed = if is_number(digits) { digits.parse().ok() } else { None };
        parsed.ok_or_else(|| self.before(Code::K104, format!("`{digits}` is not a whole number below 2^32")))
    }

    fn duration(&mut self) -> Parsed<u64> {
        let word = self.word("a duration such as `120s`")?;
        let split = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
        let (digits, unit) = word.split_at(split);
        let factor = match unit {
            "ms" => Some(1_u64),
            "s" => Some(1_000),
            "m" => Some(60_000),
            _ => None,
        };
        let value = if is_number(digits) { digits.parse::<u64>().ok() } else { None };
        let product = value.zip(factor).and_then(|(value, factor)| value.checked_mul(factor));
        product.ok_or_else(|| {
            self.before(Code::K104, format!("`{word}` is not a duration such as `500ms`, `120s` or `2m`"))
        })
    }

    fn name(&mut self, what: &str) -> Parsed<String> {
        let name = self.word(what)?;
        if crate::plan::is_plan_name(&name) {
            return Ok(name);
        }
        let why = format!("{what} has at most {NAME_BYTES_MAX} letters, digits, `.`, `_` and `-`, not `-` at an end");
        Err(self.before(Code::K101, why))
    }

    fn word(&mut self, what: &str) -> Parsed<String> {
        let token = self.peek();
        if !token.word {
            let why = format!("expected {what}, found {}", shown(token));
            return Err(self.error(Code::K101, why));
        }
        let text = token.text.clone();
        self.next += 1;
        Ok(text)
    }

    fn eat(&mut self, text: &str) -> bool {
        let hit = self.peek().text == text;
        self.next += usize::from(hit);
        hit
    }

    fn expect(&mut self, text: &str) -> Parsed<()> {
        if self.eat(text) {
            return Ok(());
        }
        let why = format!("expected `{text}`, found {}", shown(self.peek()));
        Err(self.error(Code::K101, why))
    }

    fn end(&self, what: &str) -> Parsed<()> {
        if self.next >= self.tokens.len() {
            return Ok(());
        }
        Err(self.error(Code::K101, format!("expected {what}, found {}", shown(self.peek()))))
    }

    fn bounded(&self, count: usize) -> Parsed<()> {
        if count < LIST_MAX {
            return Ok(());
        }
        Err(self.error(Code::K102, format!("a list has at most {LIST_MAX} items")))
    }

    fn peek(&self) -> &Token {
        self.peek_at(0)
    }

    fn peek_at(&self, ahead: usize) -> &Token {
        self.tokens.get(self.next + ahead).unwrap_or(&self.end)
    }

    fn error(&self, code: Code, why: String) -> TextError {
        error_at(self.peek(), code, why)
    }

    /// An error about the token just taken.
    fn before(&self, code: Code, why: String) -> TextError {
        let token = self.next.checked_sub(1).and_then(|index| self.tokens.get(index)).unwrap_or(&self.end);
        error_at(token, code, why)
    }
}

fn error_at(token: &Token, code: Code, why: String) -> TextError {
    TextError { code, line: token.line, column: token.column, why }
}

fn shown(token: &Token) -> String {
    if token.text.is_empty() { "the end".to_owned() } else { format!("`{}`", token.text.escape_debug()) }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}
