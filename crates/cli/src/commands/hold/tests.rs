use super::*;
use bytes::Bytes;
use client::{AnswerBody, Answering, Exchange};
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A server at which another word always comes first.
#[derive(Debug, Default)]
struct Contended {
    posts: AtomicU32,
}

impl Exchange for Contended {
    fn exchange(&self, request: Request<Full<Bytes>>) -> Answering<'_> {
        let is_post = request.method() == hyper::Method::POST;
        let version = u64::from(self.posts.fetch_add(u32::from(is_post), Ordering::SeqCst));
        let body = serde_json::to_vec(&Holds { version, data: String::new(), holds: Vec::new() }).unwrap();
        let body: AnswerBody = Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed_unsync();
        Box::pin(async move { Ok(Response::builder().status(if is_post { 412 } else { 200 }).body(body).unwrap()) })
    }
}

#[tokio::test]
async fn a_word_that_always_comes_second_is_given_up_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    server::keys::init(dir.path()).unwrap();
    let signer = server::keys::load_human(dir.path()).unwrap();
    let contended = Arc::new(Contended::default());
    let client = Client::through(contended.clone());
    let keeper = Keeper::Server { client, url: "http://server".to_owned() };
    let mut found = keeper.state().await.unwrap();
    let word = |version| Record::Resume(Resume { scope: "payments".into(), version, reason: String::new(), by: None });
    let given_up = persist(&keeper, &signer, &mut found, word).await.unwrap_err();
    assert!(given_up.exit == 1 && given_up.message.contains("nothing was changed"), "{given_up:?}");
    assert_eq!(contended.posts.load(Ordering::SeqCst), SIGN_MAX);
}
