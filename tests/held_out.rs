//! A held-out set of messages, and one of reviews, is classified within the model card's figures: what
//! users are told through gateway, app-service and model is, text for text, what training measured.

use std::fs;

use harness::http::{Client, Request};
use harness::{build, promise, sentiment};
use promises::{Sentiment, SmsChecker};
use serde_json::{Value, json};
use text::{Class, Task};
use training::data::{Example, held_out};
use training::metrics::{Figures, Metrics};

/// How an application is asked, and what it says of a text that its task calls positive.
struct Question {
    host: &'static str,
    path: &'static str,
    field: &'static str,
    answer: &'static str,
    positive: Value,
}

/// Asks about every text in each version, and compares what came of it with the committed metrics.
fn is_as_the_card_says(gateway: &str, texts: &[Example], question: &Question, card: &str) {
    let card = build::workspace()
        .join("services/model-service/models")
        .join(card);
    let card = fs::read(card).expect("metrics");
    let card: Metrics = serde_json::from_slice(&card).expect("metrics");
    for version in ["stable", "canary"] {
        let mut client = Client::connect(gateway).expect("a connection");
        let ask = |text: &str| {
            let body = json!({ question.field: text }).to_string();
            let request = Request::post(question.path, body)
                .header("host", question.host)
                .header("content-type", "application/json")
                .header("x-experiment", version);
            let answer = client.send(&request).expect("an answer");
            assert_eq!(promise::version(&answer).expect("an answer"), version);
            let answer: Value = serde_json::from_slice(&answer.body).expect("JSON");
            match answer[question.answer] == question.positive {
                true => Class::Positive,
                false => Class::Negative,
            }
        };
        let said = card.of(version).expect("measured");
        let figures = Figures::of_answers(version, &said.model, texts, ask);
        assert_eq!(&figures, said);
    }
}

#[test]
fn messages_that_no_model_has_seen_are_classified_as_its_card_says() {
    let Some(texts) = held_out(Task::SmsSpam).expect("good data") else {
        return;
    };
    let checker = SmsChecker::start();
    let question = Question {
        host: "sms-checker.local",
        path: "/sms",
        field: "sms",
        answer: "result",
        positive: json!("spam"),
    };
    is_as_the_card_says(&checker.gateway(), &texts, &question, "sms-metrics.json");
    assert_eq!(checker.mismatches(), 0);
}

#[test]
fn reviews_that_no_model_has_seen_are_classified_as_its_card_says() {
    let Some(texts) = held_out(Task::ReviewSentiment).expect("good data") else {
        return;
    };
    let app = Sentiment::start(|_| ());
    let question = Question {
        host: sentiment::API,
        path: "/predict-sentiment-review",
        field: "review",
        answer: "prediction",
        positive: json!(1),
    };
    is_as_the_card_says(&app.gateway(), &texts, &question, "review-metrics.json");
}
