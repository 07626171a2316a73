//go:build !latchkey_test

package clock

import (
	"context"
	"math"
	"time"
)

func offset() time.Duration { return 0 }

const longSleep = time.Duration(math.MaxInt64)

func sleepUntil(ctx context.Context, d time.Duration) error { return sleep(ctx, d) }
