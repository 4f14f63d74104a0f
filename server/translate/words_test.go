package translate

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	eventrelayv1 "eventrelay/gen/go/eventrelay/v1"
)

// documentedWords are the vocabularies of the providers as they send them: by the enum that holds them, the words parted by commas.
var documentedWords = map[protoreflect.FullName]string{
	"whatsapp.webhooks.v1.MessageType": "text,image,audio,voice,video,document,sticker,location,contacts,interactive,button,order,reaction,system,unsupported,unknown," +
		"request_welcome,edit,revoke,ephemeral,group_invite,poll,product,media_placeholder,template",
	"whatsapp.webhooks.v1.InteractiveType":              "button_reply,list_reply,nfm_reply,call_permission_reply,payment_method",
	"whatsapp.webhooks.v1.CallPermissionResponse":       "accept,reject",
	"whatsapp.webhooks.v1.CallPermissionResponseSource": "user_action,automatic",
	"whatsapp.webhooks.v1.SystemNoticeType":             "user_changed_number,user_changed_user_id,customer_changed_number,customer_identity_changed",
	"whatsapp.webhooks.v1.ContactCardOrigin":            "contact_request,other",
	"whatsapp.webhooks.v1.ReferralSourceType":           "ad,post,unknown",
	"whatsapp.webhooks.v1.ReferralMediaType":            "image,video",
	"whatsapp.webhooks.v1.StatusState":                  "sent,delivered,read,failed,played,deleted,warning,RINGING,ACCEPTED,REJECTED,captured,pending",
	"whatsapp.webhooks.v1.StatusType":                   "call,payment",
	"whatsapp.webhooks.v1.RecipientType":                "group,individual",
	"whatsapp.webhooks.v1.PricingModel":                 "CBP,PMP,NBP",
	"whatsapp.webhooks.v1.PricingType":                  "regular,free_customer_service,free_entry_point",
	"whatsapp.webhooks.v1.PricingCategory": "authentication,authentication_international,authentication-international,marketing,marketing_lite,referral_conversion,service,utility," +
		"user_initiated,business_initiated,group_marketing,group_utility,group_service",
	"whatsapp.webhooks.v1.PaymentGateway":                  "billdesk,razorpay,payu,zaakpay",
	"whatsapp.webhooks.v1.PaymentTransactionStatus":        "pending,success,failed",
	"whatsapp.webhooks.v1.UserActionType":                  "marketing_messages_link_click",
	"whatsapp.webhooks.v1.MarketingMessagesClickComponent": "cta,body",
	"whatsapp.webhooks.v1.AccountAlertEntityType":          "BUSINESS,PHONE_NUMBER,CURRENT_STATUS_ID,WABA",
	"whatsapp.webhooks.v1.AccountAlertSeverity":            "CRITICAL,INFORMATIONAL,WARNING",
	"whatsapp.webhooks.v1.AccountAlertStatus":              "ACTIVE,NONE",
	"whatsapp.webhooks.v1.AccountAlertType": "INCREASED_CAPABILITIES_ELIGIBILITY_DEFERRED,INCREASED_CAPABILITIES_ELIGIBILITY_FAILED,INCREASED_CAPABILITIES_ELIGIBILITY_NEED_MORE_INFO," +
		"OBA_APPROVED,OBA_REJECTED,PROFILE_PICTURE_LOST",
	"whatsapp.webhooks.v1.ReviewDecision":         "APPROVED,REJECTED,PENDING,DEFERRED",
	"whatsapp.webhooks.v1.AccountSettingsType":    "phone_number_settings,PHONE_NUMBER_SETTINGS",
	"whatsapp.webhooks.v1.SettingStatus":          "ENABLED,DISABLED",
	"whatsapp.webhooks.v1.CallIconVisibility":     "DEFAULT,DISABLE_ALL",
	"whatsapp.webhooks.v1.Weekday":                "MONDAY,TUESDAY,WEDNESDAY,THURSDAY,FRIDAY,SATURDAY,SUNDAY",
	"whatsapp.webhooks.v1.AutomaticEventName":     "LeadSubmitted,Purchase,purchase",
	"whatsapp.webhooks.v1.BusinessUsernameStatus": "approved,reserved,deleted",
	"whatsapp.webhooks.v1.CallEvent":              "connect,terminate,call_created,call_recording_available,call_transcription_available",
	"whatsapp.webhooks.v1.CallDirection":          "BUSINESS_INITIATED,USER_INITIATED",
	"whatsapp.webhooks.v1.CallStatus":             "COMPLETED,FAILED,Completed,Failed",
	"whatsapp.webhooks.v1.CallSdpType":            "offer,answer",
	"whatsapp.webhooks.v1.FlowEventType":          "FLOW_STATUS_CHANGE,CLIENT_ERROR_RATE,ENDPOINT_ERROR_RATE,ENDPOINT_LATENCY,ENDPOINT_AVAILABILITY,FLOW_VERSION_EXPIRY_WARNING",
	"whatsapp.webhooks.v1.FlowStatus":             "DRAFT,PUBLISHED,DEPRECATED,BLOCKED,THROTTLED",
	"whatsapp.webhooks.v1.FlowAlertState":         "ACTIVATED,DEACTIVATED",
	"whatsapp.webhooks.v1.GroupUpdateType": "group_create,group_delete,group_participants_add,group_participants_remove,group_add_participants,group_remove_participants," +
		"group_join_request_created,group_join_request_revoked,group_settings_update,group_suspend,group_suspend_cleared",
	"whatsapp.webhooks.v1.GroupInitiator":       "business,participant",
	"whatsapp.webhooks.v1.HistoryPhase":         "0,1,2",
	"whatsapp.webhooks.v1.HistoryMessageStatus": "DELIVERED,ERROR,PENDING,PLAYED,READ,SENT",
	"whatsapp.webhooks.v1.ContactSyncType":      "contact",
	"whatsapp.webhooks.v1.ContactSyncAction":    "add,remove",
	"whatsapp.webhooks.v1.HandoverType":         "control_passed,control_taken",
	"whatsapp.webhooks.v1.HandoverRole":         "customer_service,marketing,utility,ctwa,ai_agent,escalation",
	"whatsapp.webhooks.v1.MessageTemplateEvent": "APPROVED,ARCHIVED,UNARCHIVED,DELETED,DISABLED,FLAGGED,IN_APPEAL,LIMIT_EXCEEDED,LOCKED,PAUSED,PENDING,REINSTATED,PENDING_DELETION,REJECTED",
	"whatsapp.webhooks.v1.MessageTemplateReason": "ABUSIVE_CONTENT,CATEGORY_NOT_AVAILABLE,INCORRECT_CATEGORY,INVALID_FORMAT,NONE,PROMOTIONAL,SCAM," +
		"TAG_CONTENT_MISMATCH",
	"whatsapp.webhooks.v1.MessageTemplatePauseTitle": "FIRST_PAUSE,SECOND_PAUSE,RATE_LIMITING_PAUSE,UNPAUSE,DISABLED",
	"whatsapp.webhooks.v1.MessageTemplateQuality":    "GREEN,YELLOW,RED,UNKNOWN",
	"whatsapp.webhooks.v1.MessageTemplateButtonType": "CATALOG,COPY_CODE,EXTENSION,FLOW,MPM,ORDER_DETAILS,OTP,PHONE_NUMBER,POSTBACK,REMINDER,SEND_LOCATION,SPM,QUICK_REPLY,URL,VOICE_CALL",
	"whatsapp.webhooks.v1.TemplateCategory":          "MARKETING,UTILITY,AUTHENTICATION,OTP,TRANSACTIONAL",
	"whatsapp.webhooks.v1.PartnerSolutionEvent":      "SOLUTION_CREATED,SOLUTION_UPDATED",
	"whatsapp.webhooks.v1.PartnerSolutionStatus":     "ACTIVE,DEACTIVATED,DRAFT,INITIATED,PENDING_DEACTIVATION,REJECTED",

	"whatsapp.webhooks.v1.PaymentConfigurationProvider": "billdesk,payu,razorpay,zaakpay",
	"whatsapp.webhooks.v1.PaymentConfigurationStatus":   "Active,Needs Connecting,Needs Testing",
	"whatsapp.webhooks.v1.NameRejectionReason": "NAME_EMPLOYEE_ISSUE,NAME_ENDCLIENT_NOTRELATED,NAME_FORMAT_UNACCEPTABLE,NAME_INDIVIDUAL_ISSUE,NAME_NOT_CONSISTENT," +
		"UNKNOWN,NONE",
	"whatsapp.webhooks.v1.PhoneNumberQualityEvent":  "ONBOARDING,THROUGHPUT_UPGRADE,FLAGGED,UNFLAGGED,UPGRADE,DOWNGRADE",
	"whatsapp.webhooks.v1.MessagingLimit":           "TIER_50,TIER_250,TIER_1K,TIER_2K,TIER_10K,TIER_100K,TIER_NOT_SET,TIER_UNLIMITED",
	"whatsapp.webhooks.v1.PhoneNumberSecurityEvent": "PIN_CHANGED,PIN_RESET_REQUEST,PIN_REQUEST_SUCCESS,PIN_RESET_SUCCESS",
	"whatsapp.webhooks.v1.UserPreferenceCategory":   "marketing_messages",
	"whatsapp.webhooks.v1.UserPreferenceValue":      "stop,resume",
	"whatsapp.webhooks.v1.AccountUpdateEvent": "ACCOUNT_DELETED,ACCOUNT_RESTRICTION,ACCOUNT_VIOLATION,AD_ACCOUNT_LINKED,AUTH_INTL_PRICE_ELIGIBILITY_UPDATE," +
		"BUSINESS_PRIMARY_LOCATION_COUNTRY_UPDATE,DISABLED_UPDATE,MM_LITE_TERMS_SIGNED,PARTNER_ADDED,PARTNER_APP_INSTALLED,PARTNER_APP_UNINSTALLED," +
		"PARTNER_CLIENT_CERTIFICATION_STATUS_UPDATE,PARTNER_CLIENT_CERTIFICATION_NEEDED,PARTNER_REMOVED,VOLUME_BASED_PRICING_TIER_UPDATE,ACCOUNT_OFFBOARDED," +
		"ACCOUNT_RECONNECTED,VERIFIED_ACCOUNT,PHONE_NUMBER_ADDED,PHONE_NUMBER_REMOVED,BUSINESS_VERIFICATION_STATUS_UPDATE",
	"whatsapp.webhooks.v1.RestrictionType": "RESTRICTED_ADD_PHONE_NUMBER_ACTION,RESTRICTED_BIZ_INITIATED_AND_USER_INITIATED_CALLING,RESTRICTED_BIZ_INITIATED_MESSAGING," +
		"RESTRICTED_BUSINESS_INITIATED_CALLING,RESTRICTED_CUSTOMER_INITIATED_MESSAGING,RESTRICTED_DIRECT_SEND_UTILITY_TEMPLATES,RESTRICTED_USER_INITIATED_CALLING," +
		"RESTRICTED_USER_INITIATED_CALLING_CALL_BUTTON_HIDDEN,RESTRICTED_UTILITY_TEMPLATES,RESTRICTION_ADD_PHONE_NUMBER_ACTION",
	"whatsapp.webhooks.v1.WabaBanState":        "SCHEDULE_FOR_DISABLE,DISABLE,REINSTATE",
	"whatsapp.webhooks.v1.CertificationStatus": "APPROVED,DISCARDED,FAILED,PENDING,REVOKED",
	"whatsapp.webhooks.v1.CertificationRejectionReason": "LEGAL NAME NOT MATCHING,ADDRESS NOT MATCHING,BUSINESS NOT ELIGIBLE,LEGAL NAME NOT FOUND IN DOCUMENTS,MALFORMED DOCUMENTS," +
		"WEBSITE NOT MATCHING,WEBSITE_NOT_MATCHING,NONE",
	"whatsapp.webhooks.v1.DisconnectionReason":    "ACCOUNT_DISCONNECTED,BUSINESS_DOWNGRADE,CHANGE_NUMBER,COMPANION_INACTIVITY,PRIMARY_INACTIVITY,USER_RE_REGISTERED",
	"whatsapp.webhooks.v1.DisconnectionInitiator": "SYSTEM,USER",
	"meta.webhooks.v1.Verb":                       "add,edit,edited,remove,hide,unhide,block,unblock,mute,update,delete,follow,granted,revoked",
	"meta.webhooks.v1.FeedItem":                   "status,post,photo,video,share,comment,like,reaction,album,event,note,rating,mention,link",
	"meta.webhooks.v1.AccountLinkingStatus":       "linked,unlinked",
	"meta.webhooks.v1.MessagingReactionAction":    "react,unreact",
	"meta.webhooks.v1.PolicyEnforcementAction":    "warning,block,unblock",
	"meta.webhooks.v1.NotificationMessagesStatus": "STOP NOTIFICATIONS,RESUME_NOTIFICATIONS",
	"meta.webhooks.v1.InstagramMediaProductType":  "AD,FEED,STORY,REELS,LIVE",
	"dialog360.webhooks.v1.AccountMode":           "sandbox,live",
	"dialog360.webhooks.v1.ChannelStatus": "created,unverified,verified,ready,modified,imported,new_name_requested,certificate_declined,consents_signed,error,porting_ready," +
		"ready_for_migration,waiting_for_migration_code,migration_code_requested,running,live",
	"dialog360.webhooks.v1.FbAccountStatus":    "verified,not_verified,rejected,pending_submission,failed,pending,pending_need_more_info,expired,ineligible,revoked",
	"dialog360.webhooks.v1.OnBehalfOfStatus":   "submitted,approved,rejected,denied",
	"dialog360.webhooks.v1.ClientStatus":       "unknown,active",
	"dialog360.webhooks.v1.WabaTemplateStatus": "created,submitted,pending,approved,rejected,REJECTED,APPROVED,FLAGGED",
}

// payloadEnums are the enums of a message and of all below it.
func payloadEnums(md protoreflect.MessageDescriptor, all map[protoreflect.FullName]protoreflect.EnumDescriptor, seen map[protoreflect.FullName]bool) {
	if seen[md.FullName()] {
		return
	}
	seen[md.FullName()] = true
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		if fd.Enum() != nil {
			all[fd.Enum().FullName()] = fd.Enum()
		}
		if fd.Message() != nil {
			payloadEnums(fd.Message(), all, seen)
		}
	}
}

func TestEveryDocumentedWordHasAValue(t *testing.T) {
	enums := map[protoreflect.FullName]protoreflect.EnumDescriptor{}
	payloadEnums((*eventrelayv1.Event)(nil).ProtoReflect().Descriptor(), enums, map[protoreflect.FullName]bool{})
	for name, words := range documentedWords {
		if enums[name] == nil {
			t.Errorf("no event has a %s", name)
			continue
		}
		known := enumWords(enums[name])
		for word := range strings.SplitSeq(words, ",") {
			if _, ok := known[string(normalWord(nil, []byte(word)))]; !ok {
				t.Errorf("%s has no value for %q", name, word)
			}
		}
	}
	for name, ed := range enums {
		if zero := string(ed.Values().ByNumber(0).Name()); zero != upperSnake(string(ed.Name()))+"_UNSPECIFIED" && name != "google.protobuf.NullValue" {
			t.Errorf("%s begins with %s", name, zero)
		}
	}
}

func TestEveryVocabularyNamesItsSource(t *testing.T) {
	paths, err := filepath.Glob("../../proto/*/webhooks/v1/*.proto")
	if err != nil || len(paths) < 30 {
		t.Fatalf("%d protos: %v", len(paths), err)
	}
	commented := regexp.MustCompile(`(?m)((?:^//.*\n)+)^enum (\w+)`)
	count := 0
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, enum := range commented.FindAllSubmatch(text, -1) {
			count++
			if !strings.Contains(string(enum[1]), "\n// Source: ") {
				t.Errorf("%s: %s does not say where its words come from", filepath.Base(path), enum[2])
			}
		}
	}
	if count < 80 {
		t.Errorf("only %d vocabularies were found", count)
	}
}
