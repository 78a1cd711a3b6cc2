//! `stanch misses`: what failed after a restart although no answer had named it, and what to declare because of it.

use super::follow::connect;
use crate::args::MissesArgs;
use crate::failure::Failure;
use server::misses::{List, Word};

pub(crate) async fn run(args: &MissesArgs) -> Result<u8, Failure> {
    match (&args.accept, &args.dismiss) {
        (Some(pair), _) => decide(args, "accept", pair).await,
        (None, Some(pair)) => decide(args, "dismiss", pair).await,
        (None, None) => list(args).await,
    }
}

async fn list(args: &MissesArgs) -> Result<u8, Failure> {
    let server = &args.server.server;
    let answer = connect(server)?.get_bytes("/misses").await;
    let (status, bytes) = answer.map_err(|error| unreachable(server, &error))?;
    if status != 200 {
        return Err(refused(status, &bytes));
    }
    let list: List = serde_json::from_slice(&bytes).map_err(anyhow::Error::from)?;
    if args.server.json {
        out!("{}", serde_json::to_string(&list).map_err(anyhow::Error::from)?);
    } else {
        lines(&list).iter().for_each(|line| out!("{line}"));
    }
    Ok(0)
}

async fn decide(args: &MissesArgs, verdict: &str, (caller, callee): &(String, String)) -> Result<u8, Failure> {
    let by = args.by.clone().filter(|by| !by.is_empty()).unwrap_or_else(|| "somebody".to_owned());
    let word = Word { caller: caller.clone(), callee: callee.clone(), by, reason: args.reason.clone() };
    let body = serde_json::to_vec(&word).map_err(anyhow::Error::from)?;
    let answer = connect(&args.server.server)?.post_bytes(&format!("/misses/{verdict}"), body).await;
    let (status, bytes) = answer.map_err(|error| unreachable(&args.server.server, &error))?;
    if status != 204 {
        return Err(refused(status, &bytes));
    }
    let said = if verdict == "accept" {
        format!("accepted: {callee} is never restarted without {caller}, and nothing is suspected any more")
    } else {
        format!("dismissed: {callee} may restart without {caller} again")
    };
    if args.server.json {
        out!("{}", serde_json::json!({ verdict: format!("{caller}->{callee}") }));
    } else {
        out!("{}", plain(&said));
    }
    Ok(0)
}

fn lines(list: &List) -> Vec<String> {
    if list.misses.is_empty() {
        return vec![format!("no missed dependency stands ({} recorded)", list.recorded)];
    }
    let mut lines = Vec::new();
    for line in &list.misses {
        let missed = &line.missed;
        lines.push(plain(&format!("{} → {}   {}", missed.caller, missed.callee, line.sentence)));
        lines.push(plain(&format!("  incident {}; {} is not restarted without it", missed.incident, missed.callee)));
        if line.agreed {
            lines.push("  accepted: nothing is suspected any more".to_owned());
            continue;
        }
        lines.push(
            "  until a person decides, stanch is no more than cautious about both. Either add to stanch.toml:"
                .to_owned(),
        );
        lines.extend(line.proposal.lines().map(|line| plain(&format!("    {line}"))));
        for (verdict, what) in [("accept", "or say that it is so:"), ("dismiss", "or take it back:      ")] {
            let pair = format!("{}->{}", missed.caller, missed.callee);
            lines.push(plain(&format!("  {what} stanch misses --{verdict} \"{pair}\" --reason …")));
        }
    }
    lines
}

/// Names are data: control characters are shown, not obeyed.
fn plain(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}

fn unreachable(server: &str, error: &client::Error) -> Failure {
    Failure::internal(format!("no server at {server}: {error}"))
        .next("stanch serve, or the same command with --server URL")
}

fn refused(status: u16, bytes: &[u8]) -> Failure {
    let told = String::from_utf8_lossy(bytes).into_owned();
    if status < 500 { Failure::usage(told).next("stanch misses, which lists them") } else { Failure::internal(told) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_miss_is_shown_with_what_to_declare_and_how_to_take_it_back() {
        let line = json!({
            "caller": "inventory\u{7}", "callee": "payments", "incident": "abc", "at_ms": 1, "since_ms": 1, "sign": "errors",
            "requests": 10, "errors": 10, "p99_us": 1, "usual_requests": 9, "usual_errors": 0, "usual_p99_us": 1,
            "sentence": "it is so", "agreed": false, "proposal": "[service.payments]\ncoupled = [\"inventory\"]\n",
        });
        let mut list: List = serde_json::from_value(json!({ "misses": [line], "recorded": 1 })).unwrap();
        let text = lines(&list).join("\n");
        assert!(text.contains("    coupled = [\"inventory\"]") && text.contains("--dismiss"), "{text}");
        assert!(!text.contains('\u{7}'), "{text}");
        list.misses[0].agreed = true;
        assert!(!lines(&list).join("\n").contains("coupled = "));
        assert_eq!(lines(&List { misses: Vec::new(), recorded: 2 }), ["no missed dependency stands (2 recorded)"]);
    }
}
