//! The helper process: one security context of the system's GSSAPI, asked for its tokens line by line.
//!
//! A process of its own, because the library takes its ticket cache and key table from environment variables, which all
//! threads of a process share, and because it waits for the network.

use std::io::{BufRead, Write};

use base64::{Engine, prelude::BASE64_STANDARD};
use libgssapi::{
    context::{ClientCtx, CtxFlags, SecurityContext},
    credential::{Cred, CredUsage},
    name::Name,
    oid::{GSS_MECH_SPNEGO, GSS_NT_HOSTBASED_SERVICE, GSS_NT_KRB5_PRINCIPAL, OidSet},
};
use zeroize::Zeroizing;

use super::helper::{Order, Said, Step};

/// Answers the lines of `input` until it ends: an [`Order`] first, then a [`Step`] for each token of the server.
///
/// # Errors
/// The pipes broke; what GSSAPI has to complain about is an answer.
pub fn serve(mut input: impl BufRead, mut output: impl Write) -> std::io::Result<()> {
    let mut context = None;
    loop {
        let mut line = Zeroizing::new(String::new());
        if input.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let said = answer(&line, &mut context).unwrap_or_else(|why| Said { error: Some(why), ..Said::default() });
        serde_json::to_writer(&mut output, &said)?;
        output.write_all(b"\n")?;
        output.flush()?;
    }
}

/// The context, and what it is bound to.
struct Context {
    gss: ClientCtx,
    binding: Option<Vec<u8>>,
}

fn answer(line: &str, context: &mut Option<Context>) -> Result<Said, String> {
    let decode = |text: &String| BASE64_STANDARD.decode(text).map_err(|error| error.to_string());
    let (open, token) = match context {
        Some(open) => {
            let step: Step = serde_json::from_str(line).map_err(|error| error.to_string())?;
            (open, Some(decode(&step.token)?))
        }
        None => {
            let order: Order = serde_json::from_str(line).map_err(|_| "the order cannot be read".to_owned())?;
            let binding = order.binding.as_ref().map(decode).transpose()?;
            (context.insert(Context { gss: open(&order)?, binding }), None)
        }
    };
    let made = open.gss.step(token.as_deref(), open.binding.as_deref()).map_err(|error| error.to_string())?;
    let token = made.filter(|made| !made.is_empty()).map(|made| BASE64_STANDARD.encode(&*made));
    Ok(Said { token, complete: open.gss.is_complete(), error: None })
}

fn open(order: &Order) -> Result<ClientCtx, String> {
    let failed = |what: &str, error: libgssapi::error::Error| format!("{what}: {error}");
    let mut mechanisms = OidSet::new();
    mechanisms.add(GSS_MECH_SPNEGO).map_err(|error| failed("no SPNEGO", error))?;
    let principal = match order.principal.as_str() {
        "" => None,
        name => Some(
            Name::new(name.as_bytes(), Some(GSS_NT_KRB5_PRINCIPAL)).map_err(|error| failed("`principal`", error))?,
        ),
    };
    let credential = match &order.password {
        Some(password) => {
            Cred::acquire_with_password(principal.as_ref(), password, None, CredUsage::Initiate, Some(&mechanisms))
        }
        None => Cred::acquire(principal.as_ref(), None, CredUsage::Initiate, Some(&mechanisms)),
    };
    let credential = credential.map_err(|error| failed("no ticket", error))?;
    let service = if order.service.contains('@') {
        Name::new(order.service.as_bytes(), Some(GSS_NT_KRB5_PRINCIPAL))
    } else {
        let hosted = order.service.replacen('/', "@", 1);
        Name::new(hosted.as_bytes(), Some(GSS_NT_HOSTBASED_SERVICE))
    };
    let service = service.map_err(|error| failed("the service's name", error))?;
    let mut flags = CtxFlags::empty();
    flags.set(CtxFlags::GSS_C_MUTUAL_FLAG, order.mutual);
    flags.set(CtxFlags::GSS_C_DELEG_FLAG, order.delegate);
    Ok(ClientCtx::new(Some(credential), service, flags, Some(GSS_MECH_SPNEGO)))
}
