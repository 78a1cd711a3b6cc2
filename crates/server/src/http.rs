//! The server's own way of taking connections in, for whoever measures what it costs.

use crate::config::ServerSettings;
use crate::engine::Env;
use crate::limits::Traffic;
use crate::listen;
use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Serves other routes as `stanch serve` serves its own, with the limits it has by default, until `stop` is cancelled.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    listen::serve(listener, router, Traffic::new(Env::real(), ServerSettings::default()), stop).await;
}
