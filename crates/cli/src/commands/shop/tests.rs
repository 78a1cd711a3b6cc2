use super::*;
use tokio::io::{AsyncBufReadExt as _, BufReader};

const SHORT: Duration = Duration::from_millis(60);

/// A shop that nobody started.
fn nothing(dir: &Path) -> Shop {
    Shop { dir: dir.to_owned(), url: "http://127.0.0.1:1".to_owned(), record_url: String::new(), child: None }
}

/// [`START_MAX`] and [`MATURE_MAX`] bound the same loops in a run.
#[tokio::test]
async fn a_shop_that_does_not_start_or_settle_is_given_up() {
    assert!(SHORT < START_MAX && SHORT < MATURE_MAX);
    let dir = tempfile::tempdir().unwrap();
    let late = nothing(dir.path()).wait_ready(SHORT).await.unwrap_err();
    assert!(late.exit == 1 && late.message.contains("was not ready after 0 s"), "{late:?}");
    let unsure = nothing(dir.path()).mature_within(SHORT, &["gateway"], Instant::now()).await.err().unwrap();
    assert!(unsure.exit == 1 && unsure.message.contains("not ready to be broken"), "{unsure:?}");
}

/// [`END_MAX`] bounds the same loop in a run.
#[tokio::test]
async fn a_shop_that_does_not_end_is_not_waited_for_for_ever() {
    assert!(SHORT < END_MAX);
    let dir = tempfile::tempdir().unwrap();
    assert!(gone(dir.path(), SHORT).await, "nobody is there");
    let socket = tokio::net::UnixListener::bind(dir.path().join(server::control::SUPERVISOR_SOCKET)).unwrap();
    tokio::spawn(async move {
        let answer = server::control::Answer::Status(server::control::Status::default());
        let answer = format!("{}\n", serde_json::to_string(&answer).unwrap());
        while let Ok((stream, _)) = socket.accept().await {
            let mut stream = BufReader::new(stream);
            let _ = stream.read_line(&mut String::new()).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    assert!(!gone(dir.path(), SHORT).await, "one that answers is still there");
}
