use super::*;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};

/// An agent that answers every question alike; its base address.
async fn agent(status: StatusCode, body: Vec<u8>) -> String {
    let router = Router::new().route("/propose", post(async move || (status, body)));
    serve(router).await
}

async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

const PATIENT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn an_agent_is_shown_the_view_and_its_words_are_kept_verbatim() {
    let echo = |Json(view): Json<AgentView>| async move {
        format!("{{ \"plan\": \"restart {}\", \"opinion\": {{ \"sure\": 1 }}, \"more\": [] }}", view.target)
    };
    let view = AgentView { target: "payments".into(), ..AgentView::default() };
    for (base, path) in [("", "/propose"), ("/planner/v1", "/planner/v1/propose")] {
        let url = serve(Router::new().route(path, post(echo))).await;
        let (proposal, verbatim) = ask(&Http, &format!("{url}{base}"), &view, PATIENT).await;
        assert_eq!(proposal.unwrap().plan.as_deref(), Some("restart payments"), "{path}");
        let text = r#"{ "plan": "restart payments", "opinion": { "sure": 1 }, "more": [] }"#;
        assert_eq!(String::from_utf8(verbatim).unwrap(), text);
    }
}

#[tokio::test]
async fn an_agent_that_does_not_know_says_so_with_an_empty_object() {
    let url = agent(StatusCode::OK, b"{}".to_vec()).await;
    let (proposal, _) = ask(&Http, &url, &AgentView::default(), PATIENT).await;
    assert_eq!(proposal, Some(AgentProposal { plan: None, opinion: serde_json::Value::Null, reason: None }));
}

#[tokio::test]
async fn whatever_is_not_a_plan_in_time_is_unknown_and_recorded_as_it_came() {
    let plan = br#"{"plan":"restart payments"}"#.to_vec();
    let padded = [plan.clone(), vec![b' '; AGENT_BYTES_MAX]].concat();
    for (status, body) in [
        (StatusCode::OK, b"restart payments".to_vec()),
        (StatusCode::OK, br#"{"plan":7}"#.to_vec()),
        (StatusCode::OK, padded),
        (StatusCode::CREATED, plan.clone()),
        (StatusCode::INTERNAL_SERVER_ERROR, plan),
    ] {
        let url = agent(status, body.clone()).await;
        let (proposal, verbatim) = ask(&Http, &url, &AgentView::default(), PATIENT).await;
        assert_eq!(proposal, None, "{status}");
        assert_eq!(verbatim, body[..body.len().min(AGENT_BYTES_MAX)], "{status}");
    }
}

#[tokio::test]
async fn an_agent_that_is_late_gone_or_at_no_address_is_unknown() {
    let never = serve(Router::new().route("/propose", post(std::future::pending::<()>))).await;
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for url in [never, format!("http://{gone}"), "https://127.0.0.1:1".to_owned(), "nowhere".to_owned()] {
        let (proposal, _) = ask(&Http, &url, &AgentView::default(), Duration::from_millis(50)).await;
        assert_eq!(proposal, None, "{url}");
    }
}

#[tokio::test]
async fn a_view_that_is_too_large_is_not_sent() {
    let url = agent(StatusCode::OK, b"{}".to_vec()).await;
    let view = AgentView { target: "x".repeat(AGENT_BYTES_MAX), ..AgentView::default() };
    assert_eq!(ask(&Http, &url, &view, PATIENT).await, (None, Vec::new()));
}
