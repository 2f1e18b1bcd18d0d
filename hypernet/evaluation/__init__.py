"""Evaluation: does an adapter follow its description, and does it beat simpler baselines?"""
