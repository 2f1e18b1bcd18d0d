"""Evaluation: does the adapter follow its description, or would something simpler do as well?"""
