//! Pushed authorization requests (RFC 9126): the parameters go to the server first, the browser carries a reference.

use super::{
    answer,
    authorize::Flow,
    client::{Client, Dated, Tried},
    config::ClientAuth,
    discovery::Place,
    request::{Form, ReadParam},
};
use crate::auth::AuthError;

impl Client {
    /// Pushes the parameters of a login; gives the `request_uri` for them.
    pub(super) async fn push(&self, flow: &Flow, mut form: Form, params: &[ReadParam]) -> Result<String, AuthError> {
        let facts = &flow.facts;
        let Some(url) = self.place(Place::Pushed, facts).await? else {
            return Err(self.missing(
                "the issuer demands pushed authorization requests and names no endpoint for them; set `par_url`",
            ));
        };
        // Where the identity is not in a header, proving it adds the parameter.
        if facts.identity.auth != ClientAuth::Basic {
            form.forget("client_id");
        }
        let mut tried = Tried::default();
        loop {
            let mut own = form.clone();
            let request = self.proved(facts, &url, &mut own, params, flow.key.as_ref())?;
            let response = self.send(request, &url).await?;
            let result = answer::object(&response, self.context.clock.now(), &|text| self.masked(text, params));
            let is_dated = Dated { client: facts.identity.auth.is_assertion(), grant: false };
            if self.is_mended(&mut tried, &url, &response, result.as_ref().err(), is_dated) {
                continue;
            }
            let members = result.map_err(|failure| self.explain_endpoint(failure, facts, &url, "par_url"))?;
            let uri = members.get("request_uri").and_then(|uri| uri.as_str());
            return uri
                .map(str::to_owned)
                .ok_or_else(|| self.endpoint_error("the answer of `par_url` holds no request_uri", None));
        }
    }
}
