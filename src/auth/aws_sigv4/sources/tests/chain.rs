//! Which source the chain takes.

use super::*;

#[tokio::test]
async fn the_first_that_is_set_up_is_taken() {
    let profile = "[default]\naws_access_key_id = AKIAPROFILE\naws_secret_access_key = CANARY-p\n";
    let web = [("AWS_WEB_IDENTITY_TOKEN_FILE", "/token"), ("AWS_ROLE_ARN", "arn:web")];
    let container = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/task");
    let all = [ENV[0], ENV[1], web[0], web[1], container];
    for (from, with_profile, found) in [
        (&all[..], true, "the environment"),
        (&all[2..], true, "role arn:web"),
        (&all[3..], true, "profile `default`"),
        (&all[3..], false, "the container endpoint"),
        (&all[5..], false, "instance metadata"),
    ] {
        let setup = Setup::new(Net::silent());
        if with_profile {
            setup.file(".aws/credentials", profile);
        }
        let source = setup.source(json!("chain"), from);
        let plan = source.0.planner.plan().await.unwrap();
        assert!(plan.origin().starts_with(found), "{found}: {}", plan.origin());
    }
}

#[tokio::test]
async fn a_profile_that_is_named_must_be_there_and_one_without_keys_is_passed_over() {
    let setup = Setup::new(Net::silent());
    setup.file(".aws/config", "[default]\nregion = eu-west-1\n[profile dev]\nregion = eu-west-1\n");
    let container = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/task");
    for variables in [vec![container], vec![container, ("AWS_PROFILE", "dev")]] {
        let plan = setup.source(json!("chain"), &variables).0.planner.plan().await.unwrap();
        assert!(plan.origin().starts_with("the container endpoint"), "{}", plan.origin());
    }
    let error = setup.fails(json!("chain"), &[container, ("AWS_PROFILE", "prod")]).await;
    assert!(error.contains("no profile `prod`") && error.contains("`dev`"), "{error}");
}

#[tokio::test]
async fn a_source_that_is_half_set_up_is_an_error_and_not_passed_over() {
    let setup = Setup::new(Net::silent());
    let container = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/task");
    assert!(setup.fails(json!("chain"), &[ENV[0], container]).await.contains("AWS_SECRET_ACCESS_KEY is not"));
    setup.file(".aws/credentials", "[default]\naws_access_key_id = AKIA1\n");
    assert!(setup.fails(json!("chain"), &[container]).await.contains("`aws_secret_access_key` is not"));
}

#[tokio::test]
async fn nothing_at_all_says_what_was_looked_at() {
    let setup = Setup::new(Net::silent());
    let error = setup.fails(json!("chain"), &[("AWS_EC2_METADATA_DISABLED", "true")]).await;
    for part in ["AWS_ACCESS_KEY_ID", "profile `default`", "container", "AWS_EC2_METADATA_DISABLED"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[tokio::test]
async fn a_file_that_appears_later_is_found() {
    let setup = Setup::new(Net::silent());
    let source = setup.source(json!("chain"), &[("AWS_EC2_METADATA_DISABLED", "true")]);
    assert!(setup.keys(&source).await.is_err());
    setup.file(".aws/credentials", "[default]\naws_access_key_id = AKIA1\naws_secret_access_key = CANARY\n");
    assert_eq!(setup.keys(&source).await.unwrap().0, "AKIA1");
}
