"""Checks with OpenAI's official Python client that an event comes from the farm.

DARKROOM_EVENTS is a file with a JSON document per line: the headers and the body of an event, as a
receiver got them. DARKROOM_SECRET is the webhook's secret.
"""

import json
import os
import unittest

import openai
from openai import OpenAI

SECRET = os.environ["DARKROOM_SECRET"]


def events():
    with open(os.environ["DARKROOM_EVENTS"], encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


class Webhooks(unittest.TestCase):
    client = OpenAI(api_key="none", base_url="http://127.0.0.1:1/v1", webhook_secret=SECRET)

    def test_events_are_unwrapped(self):
        for one in events():
            event = self.client.webhooks.unwrap(one["body"], one["headers"])
            self.assertEqual(event.id, one["headers"]["webhook-id"])
            self.assertEqual(event.object, "event")
            self.assertEqual(event.type, "job.completed")
            self.assertEqual(event.data.id, os.environ["DARKROOM_JOB"])
            self.assertGreater(event.created_at, 1_700_000_000)

    def test_what_was_changed_is_not(self):
        wrong = openai.InvalidWebhookSignatureError
        one = events()[0]
        unwrap = self.client.webhooks.unwrap
        with self.assertRaises(wrong):
            unwrap(one["body"].replace("completed", "cancelled"), one["headers"])
        for header, value in [
            ("webhook-id", "evt_other"),
            ("webhook-timestamp", str(int(one["headers"]["webhook-timestamp"]) + 1)),
        ]:
            with self.assertRaises(wrong):
                unwrap(one["body"], {**one["headers"], header: value})
        with self.assertRaises(wrong):
            unwrap(one["body"], one["headers"], secret="whsec_" + "A" * 43 + "=")


if __name__ == "__main__":
    unittest.main()
