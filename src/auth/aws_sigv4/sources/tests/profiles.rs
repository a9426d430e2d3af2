//! Profiles, and what they lead to.

use super::*;

const CREDENTIALS: &str = "[default]\naws_access_key_id = AKIADEFAULT\naws_secret_access_key = CANARY-d\n\
    [dev]\naws_access_key_id=AKIADEV\naws_secret_access_key=CANARY-dev\naws_session_token=CANARY-t\n";

#[tokio::test]
async fn a_profile_is_found_by_name_variable_or_default() {
    let setup = Setup::new(Net::silent());
    let file = setup.file(".aws/credentials", CREDENTIALS);
    for (config, variables, access) in [
        (json!({"profile": "dev"}), vec![("AWS_PROFILE", "default")], "AKIADEV"),
        (json!({"profile": {}}), vec![("AWS_PROFILE", "dev")], "AKIADEV"),
        (json!({"profile": {}}), vec![("AWS_DEFAULT_PROFILE", "dev")], "AKIADEV"),
        (json!({"profile": {}}), vec![], "AKIADEFAULT"),
    ] {
        let (found, _, token, origin) = setup.keys(&setup.source(config, &variables)).await.unwrap();
        assert_eq!((&*found, token.is_some()), (access, access == "AKIADEV"));
        assert!(origin.starts_with("profile `") && origin.contains(&file), "{origin}");
    }
}

#[tokio::test]
async fn files_are_found_by_key_variable_or_home() {
    let setup = Setup::new(Net::silent());
    setup.file(".aws/credentials", CREDENTIALS);
    let other = setup.file("other", "[default]\naws_access_key_id = AKIAOTHER\naws_secret_access_key = CANARY\n");
    let config = setup.file("cfg", "[profile conf]\naws_access_key_id = AKIACONF\naws_secret_access_key = CANARY\n");
    for (keys, variables, access) in [
        (json!({"profile": {"file": other}}), vec![], "AKIAOTHER"),
        (json!({"profile": {}}), vec![("AWS_SHARED_CREDENTIALS_FILE", &*other)], "AKIAOTHER"),
        (json!({"profile": {}}), vec![("AWS_SHARED_CREDENTIALS_FILE", "~/other")], "AKIAOTHER"),
        (json!({"profile": {"name": "conf", "config_file": config}}), vec![], "AKIACONF"),
        (json!({"profile": "conf"}), vec![("AWS_CONFIG_FILE", &*config)], "AKIACONF"),
    ] {
        assert_eq!(setup.keys(&setup.source(keys, &variables)).await.unwrap().0, access);
    }
    assert!(setup.fails(json!({"profile": {"file": "/nowhere"}}), &[]).await.contains("/nowhere"));
}

#[tokio::test]
async fn a_file_that_changes_is_read_again_and_one_that_does_not_keeps_its_keys() {
    let setup = Setup::new(Net::silent());
    let file = setup.file(".aws/credentials", CREDENTIALS);
    let source = setup.source(json!({"profile": "dev"}), &[]);
    setup.keys(&source).await.unwrap();
    let (_, first) = source.current().unwrap();
    // Other profiles may change as they like.
    setup.file(".aws/credentials", &format!("{CREDENTIALS}[more]\na = b\n"));
    setup.keys(&source).await.unwrap();
    assert_eq!(source.current().unwrap().1, first);
    assert!(!source.renew(first).await.unwrap(), "refused, but there are no others");
    setup.file(".aws/credentials", &CREDENTIALS.replace("AKIADEV", "AKIANEW"));
    assert!(source.renew(first).await.unwrap(), "refused, and there are others");
    assert_eq!(setup.keys(&source).await.unwrap().0, "AKIANEW");
    assert!(source.renew(first).await.unwrap(), "a late refusal");
    setup.file(".aws/credentials", &CREDENTIALS.replace("AKIADEV", "AKIATHIRD"));
    assert_eq!(setup.keys(&source).await.unwrap().0, "AKIATHIRD");
    std::fs::remove_file(&file).unwrap();
    assert!(setup.ready(&source).await.unwrap_err().contains("no profile `dev`"));
    setup.file(".aws/credentials", CREDENTIALS);
    assert_eq!(setup.keys(&source).await.unwrap().0, "AKIADEV", "at once when it is right again");
}

#[tokio::test]
async fn what_a_profile_says_wrongly_is_explained() {
    let half = "aws_access_key_id = AKIA1\n";
    let role = "role_arn = arn:r\n";
    for (profile, said) in [
        (half.to_owned(), "`aws_secret_access_key` is not"),
        (format!("{half}aws_secret_access_key = CANARY x\n"), "blanks"),
        (role.to_owned(), "no `source_profile`"),
        (format!("{role}source_profile = x\ncredential_source = Environment\n"), "keep one"),
        (format!("{role}source_profile = x\n"), "no profile `x`"),
        (format!("{role}source_profile = p\n"), "circle: p -> p"),
        (format!("{role}source_profile = q\n[q]\n{role}source_profile = p\n"), "circle: p -> q -> p"),
        (format!("{role}source_profile = q\n[q]\nregion = r\n"), "`source_profile` `q` has no keys"),
        (format!("{role}source_profile = q\nmfa_serial = arn\n"), "mfa_serial"),
        (format!("{role}credential_source = Elsewhere\n"), "none of Environment"),
        (format!("{role}credential_source = Environment\n"), "AWS_ACCESS_KEY_ID is not set"),
        (format!("{role}credential_source = EcsContainer\n"), "AWS_CONTAINER"),
        (format!("{role}credential_source = Environment\nduration_seconds = 5\n"), "`duration_seconds` is not between"),
        (format!("{role}credential_source = Environment\nduration_seconds = x\n"), "`duration_seconds` is no number"),
        (format!("{role}credential_source = Environment\nregion = evil.test/\n"), "region"),
        ("web_identity_token_file = /t\n".to_owned(), "no `role_arn`"),
        ("credential_process = 'a\n".to_owned(), "`credential_process`"),
        ("sso_session = s\nsso_account_id = 1\n".to_owned(), "export-credentials --profile p"),
        ("sso_start_url = https://x\n".to_owned(), "export-credentials"),
        ("login_session = arn\n".to_owned(), "export-credentials"),
        ("region = eu-west-1\n".to_owned(), "has no keys"),
        ("CANARY\n".to_owned(), "line 2"),
    ] {
        let setup = Setup::new(Net::silent());
        setup.file(".aws/credentials", &format!("[p]\n{profile}"));
        let error = setup.fails(json!({"profile": "p"}), &[]).await;
        assert!(error.contains(said), "{said}: {error}");
    }
}

#[tokio::test]
async fn a_profile_leads_to_a_command() {
    let setup = Setup::new(Net::silent());
    let printed = json!({"Version": 1, "AccessKeyId": "AKIACMD", "SecretAccessKey": "CANARY-c"}).to_string();
    let script = setup.file("it prints", &printed);
    setup.file(".aws/config", &format!("[profile p]\ncredential_process = cat \"{script}\"\nsso_start_url = x\n"));
    let (access, _, _, origin) = setup.keys(&setup.source(json!({"profile": "p"}), &[])).await.unwrap();
    assert_eq!(access, "AKIACMD");
    assert!(origin.starts_with("profile `p`") && origin.ends_with("by the command `cat`"), "{origin}");
}

#[tokio::test]
async fn a_profile_leads_to_a_role_by_each_kind_of_source() {
    let role = "role_arn = arn:r\nexternal_id = ext\nrole_session_name = me\nduration_seconds = 900\n";
    let from = |how: &str| format!("[default]\nregion = eu-central-1\n[profile p]\n{role}region = eu-west-1\n{how}\n");
    let env = [ENV[0], ENV[1]];
    let container = [("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/t")];
    for (how, variables, source) in [
        ("source_profile = dev", &[][..], "profile `dev`"),
        ("source_profile = p\naws_access_key_id = AKIASELF\naws_secret_access_key = CANARY", &[], "profile `p`"),
        ("credential_source = Environment", &env, "the environment"),
        ("credential_source = EcsContainer", &container, "the container endpoint"),
        ("credential_source = Ec2InstanceMetadata", &[], "instance metadata"),
        ("web_identity_token_file = ~/token", &[], "the token in"),
    ] {
        let setup = Setup::new(Net::silent());
        setup.file(".aws/credentials", CREDENTIALS);
        setup.file(".aws/config", &from(how));
        let plan = setup.source(json!({"profile": "p"}), variables).0.planner.plan().await.unwrap();
        let origin = plan.origin();
        assert!(origin.starts_with("role arn:r by https://sts.eu-west-1.amazonaws.com, asked for with "), "{origin}");
        assert!(origin.contains(source), "{source}: {origin}");
        let (Plan::AssumeRole { session, .. } | Plan::WebIdentity { session, .. }) = plan else { panic!("{origin}") };
        assert_eq!((&*session.name, session.duration), ("me", Some(900)));
        assert_eq!(session.external_id.unwrap().expose(), "ext");
    }
}
