"""Writes made-up support tickets: `python make_data.py [FOLDER] [--tickets N] [--seed S]`.

A ticket's queue follows from its words, from which of them are "solved" by the way (other queues'
words stand in every third ticket), and a little from how it came and how long the customer waited;
one in twenty stands in a queue at random, as in life.
"""

from __future__ import annotations

import argparse
import csv
import random
from pathlib import Path

QUEUES = ("account", "billing", "delivery", "returns", "technical")
SHARES = (0.2, 0.25, 0.2, 0.15, 0.2)
SUBJECTS = {
    "account": ["cannot log in", "password reset", "change my address", "close my account",
                "two accounts"],
    "billing": ["charged twice", "wrong invoice", "refund missing", "question on my bill",
                "card declined"],
    "delivery": ["parcel late", "where is my order", "wrong address on parcel", "order not arrived",
                 "tracking stuck"],
    "returns": ["send it back", "return label", "item broken on arrival", "wrong size",
                "exchange please"],
    "technical": ["app crashes", "error on start", "device won't charge", "update failed",
                  "screen stays black"],
}
SAYINGS = {
    "account": ["the reset mail never comes", "my password is refused although it is right",
                "please delete my data", "I changed my name and the profile still shows the old one",
                "someone else may have used my login", "the code for signing in is not accepted"],
    "billing": ["my card was charged twice for one order", "the invoice shows the wrong amount",
                "I was promised a refund and the money is not there",
                "the discount was not taken off", "please send the invoice to my company",
                "I cancelled and was still charged"],
    "delivery": ["the parcel has been on its way for {n} days", "tracking says delivered but it is not here",
                 "the driver did not ring", "my order has not arrived",
                 "please leave the parcel with a neighbour", "half of my order is missing"],
    "returns": ["it arrived broken and I want to send it back", "the size is wrong, can I exchange it",
                "I need a label for sending it back", "the colour is not what I ordered",
                "I sent it back {n} days ago and heard nothing", "please tell me where to return it"],
    "technical": ["the app crashes when I open my orders", "after the update nothing works",
                  "it shows error {n} and stops", "the battery is empty after an hour",
                  "the screen stays black although it is charged", "it does not connect any more"],
}
FILLERS = ["Hello,", "Hi there,", "Good morning,", "please help.", "Thank you!", "Any news?",
           "I have written before.", "This is the second time.", "I am a customer for {n} years.",
           "I am not happy at all.", "Please answer soon.", "It is order {n}.", "Best regards",
           "I tried it on the phone and on the web.", "My friend has the same."]
CHANNELS = ("mail", "chat", "app", "phone")


def ticket(draw: random.Random) -> dict[str, str | int | float]:
    """One ticket with its queue."""
    queue = draw.choices(QUEUES, SHARES)[0]
    other = draw.choice([name for name in QUEUES if name != queue])
    sayings = draw.sample(SAYINGS[queue], draw.choice([1, 1, 2]))
    if draw.random() < 0.35:  # and, on the way, something that is another queue's
        sayings.append("by the way, " + draw.choice(SAYINGS[other]) + ", but that is solved")
    parts = [draw.choice(FILLERS), *sayings, *draw.sample(FILLERS, draw.randint(0, 4))]
    body = " ".join(part if part[-1] in ".!?," else f"{part}." for part in parts)
    subject = draw.choice(SUBJECTS[queue if draw.random() < 0.6 else other])
    channel = "app" if queue == "technical" and draw.random() < 0.4 else draw.choice(CHANNELS)
    waited = draw.expovariate(1 / (30 if queue == "delivery" else 12))
    said = queue if draw.random() > 0.05 else draw.choice(QUEUES)
    return {"subject": subject if draw.random() > 0.05 else "", "channel": channel,
            "body": body.replace("{n}", str(draw.randint(2, 60))),
            "hours_waited": round(waited, 1), "queue": said}


def main(folder: Path, tickets: int, seed: int) -> None:
    draw = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tickets.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["subject", "body", "channel", "hours_waited", "queue"])
        writer.writeheader()
        writer.writerows(ticket(draw) for _ in range(tickets))
    print(f"{tickets:,} tickets in {path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path())
    parser.add_argument("--tickets", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    main(options.folder, options.tickets, options.seed)
