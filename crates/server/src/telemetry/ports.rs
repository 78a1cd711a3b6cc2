//! The ports that OpenTelemetry exporters send to by default, beside the server's own.

use super::{Telemetry, grpc, http};
use crate::config::{ServerSettings, Settings};
use crate::engine::Env;
use crate::limits::Traffic;
use crate::listen;
use crate::serve::{ServeError, check_reach};
use std::net::{Ipv4Addr, SocketAddr};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The registered ports of OTLP over gRPC and over HTTP.
const GRPC: u16 = 4_317;
const HTTP: u16 = 4_318;

/// Bound, and not served yet.
pub(crate) struct Ports {
    grpc: Option<TcpListener>,
    http: Option<TcpListener>,
}

impl Ports {
    /// Binds what the settings name.
    ///
    /// # Errors
    /// An address that was asked for cannot be bound, or can be reached by others. `auto` never fails.
    pub(crate) async fn bind(settings: &Settings) -> Result<Ports, ServeError> {
        let grpc = bind(&settings.telemetry.otlp_grpc, GRPC, settings).await?;
        let http = bind(&settings.telemetry.otlp_http, HTTP, settings).await?;
        Ok(Ports { grpc, http })
    }

    /// Where gRPC is taken, as `host:port`.
    pub(crate) fn grpc(&self) -> Option<String> {
        shown(self.grpc.as_ref())
    }

    /// Where HTTP is taken, as `http://host:port`.
    pub(crate) fn http(&self) -> Option<String> {
        shown(self.http.as_ref()).map(|address| format!("http://{address}"))
    }

    /// Serves both until `stop`, then answers what is under way.
    pub(crate) async fn serve(self, telemetry: Telemetry, env: Env, settings: ServerSettings, stop: CancellationToken) {
        let by_grpc = async {
            if let Some(listener) = self.grpc {
                grpc::serve(listener, telemetry.clone(), stop.clone()).await;
            }
        };
        let by_http = async {
            if let Some(listener) = self.http {
                let traffic = Traffic::new(env, settings);
                listen::serve(listener, http::routes(telemetry.clone()), traffic, stop.clone()).await;
            }
        };
        tokio::join!(by_grpc, by_http);
    }
}

fn shown(listener: Option<&TcpListener>) -> Option<String> {
    listener.and_then(|listener| listener.local_addr().ok()).map(|address| address.to_string())
}

async fn bind(asked: &str, usual: u16, settings: &Settings) -> Result<Option<TcpListener>, ServeError> {
    match asked {
        "off" => Ok(None),
        "auto" => {
            let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, usual)).await;
            if let Err(error) = &bound {
                tracing::warn!(port = usual, %error, "spans are not taken at the usual port of OTLP");
            }
            Ok(bound.ok())
        }
        address => {
            let failed = |source| ServeError::Listen { address: address.to_owned(), source };
            let found: Vec<SocketAddr> = tokio::net::lookup_host(address).await.map_err(failed)?.collect();
            check_reach(&found, settings)?;
            Ok(Some(TcpListener::bind(found.as_slice()).await.map_err(failed)?))
        }
    }
}
