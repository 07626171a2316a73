package api_test

import (
	"latchkey/internal/rest"
)

func init() {
	good["show-own-phone-code"] = called(func(s *scene, c *call) {
		res := s.ask("POST", rest.Base+"/me/factors/push", "", auth(c.secret)...)
		c.path = rest.Base + "/me/factors/push/" + read[rest.PhoneCode](s.t, res).ID
	})
}
