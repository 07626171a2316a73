package main

import "context"

func peer(context.Context, *options, *report) error    { return nil }
func bundles(context.Context, *options, *report) error { return nil }
