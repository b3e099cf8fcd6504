"""The benchmark examines itself: does the countermeasure use the truth, and can truth, metrics and ceilings be trusted?"""
