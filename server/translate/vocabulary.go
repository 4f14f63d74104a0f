package translate

import "strings"

// itemWords names the lists of a WhatsApp value whose elements are events of their own, and the word that types have for such an element.
var itemWords = map[string]itemList{
	"messages":         {"messages", "message"},
	"statuses":         {"statuses", "status"},
	"errors":           {"errors", "error"},
	"calls":            {"calls", "call"},
	"message_echoes":   {"message_echoes", "message_echo"},
	"groups":           {"groups", "group"},
	"history":          {"history", "chunk"},
	"state_sync":       {"state_sync", "contact_sync"},
	"automatic_events": {"automatic_events", "automatic_event"},
	"user_preferences": {"user_preferences", "user_preference"},
	"user_id_update":   {"user_id_update", "user_id_update"},
	"user_actions":     {"user_actions", "user_action"},
	"events":           {"events", "tracking_event"},
}

type itemList struct{ key, word string }

// listOf is the list of items that a key means in a change of this field, if it means one.
func listOf(field string, key []byte) (name string, ok bool) {
	l, ok := itemWords[string(key)]
	if l.key == "events" && field != "tracking_events" {
		return "", false
	}
	return l.key, ok
}

// isWhole says whether the values of a field are one event each, whatever lists they hold: their `errors` and the like are part of them.
func isWhole(field string) bool {
	return field == "flows" || strings.HasPrefix(field, "account_") ||
		strings.HasPrefix(field, "message_template_") || strings.HasPrefix(field, "template_")
}

// messagingKinds are the keys that say what a messaging element is, in the order in which they are looked for: a message may have a
// referral, a postback too.
var messagingKinds = [...]string{
	"message", "message_edit", "postback", "reaction", "delivery", "read", "optin", "referral", "account_linking", "policy_enforcement",
	"policy-enforcement", "pass_thread_control", "take_thread_control", "request_thread_control", "app_roles", "payment",
	"checkout_update", "pre_checkout", "game_play", "messaging_feedback", "response_feedback", "messaging_customer_information",
}

// messagingKind is the first of messagingKinds that an element has, else its first key that says neither who nor when.
func (t *translator) messagingKind(n int32) string {
	d := t.doc
	for _, key := range messagingKinds {
		if d.get(n, key) != none {
			return key
		}
	}
	for k := n + 1; k < d.nodes[n].next; k = d.nodes[k+1].next {
		if d.nodes[k+1].kind == kindNull || d.isKey(k, "sender") || d.isKey(k, "recipient") || d.isKey(k, "timestamp") {
			continue
		}
		return string(d.text(k))
	}
	return ""
}

const whatsappObject = "whatsapp_business_account"

// fieldsOf names the fields that one object alone has. A field that a second object has too, such as `messages` or `feed`, is not here.
var fieldsOf = map[string][]string{
	whatsappObject: {
		"account_alerts", "account_review_update", "account_settings_update", "account_update", "automatic_events",
		"business_capability_update", "business_status_update", "business_username_update", "business_username_updates", "calls",
		"consumer_profile", "flows", "group_lifecycle_update", "group_participant_update", "group_participants_update",
		"group_settings_update", "group_status_update", "history", "message_template_components_update",
		"message_template_quality_update", "message_template_status_update", "partner_solutions", "payment_configuration_update",
		"phone_number_name_update", "phone_number_quality_update", "security", "smb_app_state_sync", "smb_message_echoes",
		"template_category_update", "template_correct_category_detection", "tracking_events", "user_id_update", "user_preferences",
	},
	"application": {"business_integration_install", "business_integration_uninstall", "business_integration_update"},
	"page":        {"leadgen", "leadgen_fat", "mention", "ratings"},
	"instagram":   {"live_comments", "story_insights"},
	"payments":    {"actions", "disputes"},
}

var objectsByField = func() map[string]string {
	objects := map[string]string{}
	for object, fields := range fieldsOf {
		for _, field := range fields {
			objects[field] = object
		}
	}
	return objects
}()

// objectOf is the one object that has a field, or empty where several have it or none is known to.
func objectOf(field string) string { return objectsByField[field] }

// infer sets the field and object of a change, as sent or, where they are missing, as the one that this value can belong to.
func (t *translator) infer(c *change) {
	c.field = c.sentField
	listed := t.doc.get(c.value, "messages") != none || t.doc.get(c.value, "statuses") != none
	if c.field == "" && listed {
		c.field = "messages"
	}
	if c.scope.object == "" {
		sc := *c.scope
		sc.object = objectOf(c.field)
		product, _ := t.doc.word(t.doc.get(c.value, "messaging_product"))
		if sc.object == "" && (product == "whatsapp" || c.field == "messages" && listed) {
			sc.object = whatsappObject
		}
		c.scope = &sc
	}
	c.whatsapp = c.scope.object == whatsappObject
}
