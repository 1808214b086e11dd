"""SMTP, Twilio and FCM servers of our own on loopback, to which the real SDKs send; what they got is the outbox."""
