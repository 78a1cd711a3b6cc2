//! The recovery protocol over HTTP.
