//! `GET /v1/matrix`: who lacks what of the synced folder.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use potluck_common::openapi::{AnyProblem, BadQuery};
use potluck_common::protocol::{Matrix, MatrixFile};
use serde::Deserialize;
use utoipa::IntoParams;

use super::App;
use super::failure::Failure;
use crate::matrix::part;
use crate::registry::Registry;

/// Files on one page when nothing is asked.
const DEFAULT_PAGE: usize = 1_000;
/// Files on one page at most, but for conflict copies of the last.
const MAX_PAGE: usize = 10_000;
/// Cells looked at for one page.
const MAX_PAGE_LOOKS: usize = 1_000_000;
/// Cells looked at under one lock, so that announces need not wait long.
const PART_LOOKS: usize = 20_000;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct MatrixParams {
    /// What the path begins with.
    #[serde(default)]
    prefix: String,
    /// `next` of the last page.
    after: Option<String>,
    /// Files on one page: 1,000 unless told, 10,000 at most.
    limit: Option<u64>,
}

/// Who lacks what of the synced folder.
#[utoipa::path(get, path = "/v1/matrix", params(MatrixParams),
    responses((status = 200, description = "Peers that sync, and each file with those that lack it.", body = Matrix), BadQuery, AnyProblem))]
pub(crate) async fn matrix(
    State(app): State<App>,
    params: Result<Query<MatrixParams>, QueryRejection>,
) -> Result<Json<Matrix>, Failure> {
    let Query(params) = params.map_err(|error| Failure::bad_query(error.body_text()))?;
    let limit = params.limit.map_or(DEFAULT_PAGE, |limit| usize::try_from(limit).unwrap_or(MAX_PAGE));
    let limit = limit.clamp(1, MAX_PAGE);
    let peers = app.swarm().ask(Registry::syncing);
    let (mut files, mut after, mut n_looks) = (Vec::<MatrixFile>::new(), params.after, 0);
    let next = loop {
        let wanted = limit - files.len();
        let part = app.swarm().ask_both(|registry, index| {
            part(registry, index, &peers, &params.prefix, after.as_deref(), wanted, PART_LOOKS)
        });
        files.extend(part.files);
        n_looks += part.n_looks;
        let Some(next) = part.next else { break None };
        if files.len() >= limit || n_looks >= MAX_PAGE_LOOKS {
            break Some(next.to_string());
        }
        after = Some(next.to_string());
        tokio::task::yield_now().await;
    };
    Ok(Json(Matrix { peers, files: files.into(), next }))
}
