package main

func tell(string) {}
