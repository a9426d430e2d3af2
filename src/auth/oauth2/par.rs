//! Pushed authorization requests (RFC 9126): the parameters go to the server first, the browser carries a reference.

use super::{
    answer,
    authorize::Flow,
    client::Client,
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
        for attempt in 0..2 {
            let mut own = form.clone();
            let request = self.proved(facts, &url, &mut own, params, flow.key.as_ref())?;
            let response = self.send(request, &url).await?;
            let news = self.nonces.learn(&url, response.headers());
            match answer::object(&response, self.context.clock.now()) {
                Err(answer::Failure::Refused(refusal)) if refusal.code == "use_dpop_nonce" && news && attempt == 0 => {}
                Err(failure) => return Err(self.explain_endpoint(failure, facts, &url, "par_url")),
                Ok(members) => {
                    let uri = members.get("request_uri").and_then(|uri| uri.as_str());
                    return uri
                        .map(str::to_owned)
                        .ok_or_else(|| self.endpoint_error("the answer of `par_url` holds no request_uri", None));
                }
            }
        }
        Err(self.endpoint_error("`par_url` asks for another nonce each time", None))
    }
}
